//! Device rules: from the document's list to what an eBPF program decides by.
//!
//! The meaning of the rules and their encoding in a table of numbers. It never calls the kernel.

use serde::Serialize;

use super::plan::out_of_range;
use crate::error::Result;
use crate::spec::DeviceRule;

/// mknod, as the kernel numbers it (`BPF_DEVCG_ACC_*`).
const MKNOD: u8 = 1;
/// Reading.
const READ: u8 = 2;
/// Writing.
const WRITE: u8 = 4;
const ALL: u8 = MKNOD | READ | WRITE;

/// Device numbers have 12 bits of major and 20 of minor.
const MAX_MAJOR: u32 = (1 << 12) - 1;
const MAX_MINOR: u32 = (1 << 20) - 1;

/// The character devices that every container may use, by major and minors
/// (runtime-spec, `config-linux.md`, default devices; the list of runc and crun). No rule can take
/// them away, as they come after all rules of the document; nor the right to make nodes for any device.
pub(super) const DEFAULT_DEVICES: [(u32, &[u32]); 2] = [
    (1, &[3, 5, 7, 8, 9]), // null, zero, full, random, urandom
    (5, &[0, 1, 2]),       // tty, console, ptmx
];
/// pts/*, all minors.
pub(super) const PTS_MAJOR: u32 = 136;

/// The kind of device, as the kernel numbers it (`BPF_DEVCG_DEV_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Kind {
    /// A block device.
    Block = 1,
    /// A character device.
    Char = 2,
}

/// One rule; an absent part matches everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// Whether the access is allowed.
    pub allow: bool,
    /// The kind of device.
    pub kind: Option<Kind>,
    /// The major number.
    pub major: Option<u32>,
    /// The minor number.
    pub minor: Option<u32>,
    /// The kinds of access that the rule speaks of.
    pub access: u8,
}

/// All rules of a container, the first that speaks of an access decides on it, after the defaults.
///
/// This is the document's list turned around, as there the last one decides. Each of the accesses
/// asked for at once (opening for reading and writing) is decided on its own, and all must be allowed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Policy {
    /// The rules by falling weight, without the defaults.
    pub rules: Vec<Rule>,
    /// What holds for all else.
    pub default_allow: bool,
}

impl Policy {
    /// Reads `resources.devices`.
    pub fn new(devices: &[DeviceRule]) -> Result<Policy> {
        let mut policy = Policy { rules: Vec::new(), default_allow: false };
        let mut decided = false;
        for rule in devices.iter().rev() {
            // Also after the last that has an effect: a wrong rule is refused wherever it stands.
            match parse(rule)? {
                // Devices with such numbers cannot exist.
                None => {}
                Some(_) if decided => {}
                Some(rule) if rule.is_for_all() => {
                    policy.default_allow = rule.allow;
                    decided = true;
                }
                Some(rule) if rule.is_default() => {}
                Some(rule) if policy.rules.iter().any(|above| above.covers(&rule)) => {}
                Some(rule) => policy.rules.push(rule),
            }
        }
        while policy.rules.last().is_some_and(|rule| rule.allow == policy.default_allow) {
            policy.rules.pop();
        }
        Ok(policy)
    }

    /// Whether nothing is ever denied.
    pub fn allows_all(&self) -> bool {
        self.rules.is_empty() && self.default_allow
    }

    /// The records that the program walks.
    pub(super) fn records(&self) -> Vec<u64> {
        // What no record speaks of is denied, so only an allowing end is written down.
        let end = Rule { allow: true, kind: None, major: None, minor: None, access: ALL };
        let end = self.default_allow.then_some(&end);
        self.rules.iter().chain(end).flat_map(Rule::encode).collect()
    }

    /// What the program answers; kept beside the encoding to test it against.
    #[cfg(test)]
    pub(super) fn decide(&self, kind: Kind, major: u32, minor: u32, access: u8) -> bool {
        [MKNOD, READ, WRITE].iter().filter(|bit| access & **bit != 0).all(|bit| {
            let kind = Some(kind);
            let asked = Rule { allow: true, kind, major: Some(major), minor: Some(minor), access: *bit };
            asked.is_default()
                || self.rules.iter().find(|rule| rule.covers(&asked)).map_or(self.default_allow, |r| r.allow)
        })
    }
}

/// Words of 64 bits a record.
pub(super) const RECORD_WORDS: usize = 2;
/// Where a record's accesses begin in its first word.
pub(super) const ACCESS_SHIFT: u32 = 40;
/// Where the accesses that it denies begin, relative to those that it speaks of.
pub(super) const DENY_SHIFT: u32 = 8;
/// Where the kind of device begins in a key.
pub(super) const KIND_SHIFT: u32 = 32;
/// Where the major number begins in a key.
pub(super) const MAJOR_SHIFT: u32 = 20;

impl Rule {
    fn is_for_all(&self) -> bool {
        self.kind.is_none() && self.major.is_none() && self.minor.is_none() && self.access == ALL
    }

    /// Whether it speaks of nothing but what the defaults allow anyway.
    fn is_default(&self) -> bool {
        let listed = |major, minor| DEFAULT_DEVICES.iter().any(|d| d.0 == major && d.1.contains(&minor));
        self.access == MKNOD
            || self.kind == Some(Kind::Char)
                && (self.major == Some(PTS_MAJOR)
                    || self.major.zip(self.minor).is_some_and(|(major, minor)| listed(major, minor)))
    }

    /// Whether this rule speaks of everything that `other` speaks of.
    fn covers(&self, other: &Rule) -> bool {
        fn part<T: PartialEq>(mine: Option<T>, other: Option<T>) -> bool {
            mine.is_none() || mine == other
        }
        part(self.kind, other.kind)
            && part(self.major, other.major)
            && part(self.minor, other.minor)
            && self.access & other.access == other.access
    }

    /// `[key and accesses, mask]`: it speaks of a device where `(key ^ device) & mask` is zero.
    fn encode(&self) -> [u64; RECORD_WORDS] {
        let field = |value: Option<u32>, max: u32, shift: u32| match value {
            Some(value) => (u64::from(value) << shift, u64::from(max) << shift),
            None => (0, 0),
        };
        let kind = field(self.kind.map(|kind| kind as u32), 3, KIND_SHIFT);
        let major = field(self.major, MAX_MAJOR, MAJOR_SHIFT);
        let minor = field(self.minor, MAX_MINOR, 0);
        let access = u64::from(self.access);
        let denied = if self.allow { 0 } else { access << DENY_SHIFT };
        let first = kind.0 | major.0 | minor.0 | (access | denied) << ACCESS_SHIFT;
        [first, kind.1 | major.1 | minor.1]
    }
}

/// A warning for each rule with letters in its access that mean nothing.
pub(super) fn unknown_access(devices: &[DeviceRule]) -> impl Iterator<Item = String> {
    let unknown = |text: &&str| text.chars().any(|letter| !"rwm".contains(letter));
    devices
        .iter()
        .filter_map(|rule| rule.access.as_deref())
        .filter(unknown)
        .map(|text| format!("resources.devices.access is {text:?}: only r, w and m mean something"))
}

/// Reads one rule; `None` where it speaks of numbers that no device can have.
fn parse(rule: &DeviceRule) -> Result<Option<Rule>> {
    let mut access = 0;
    let text = rule.access.as_deref().unwrap_or("rwm");
    for letter in text.chars() {
        access |= match letter {
            'r' => READ,
            'w' => WRITE,
            'm' => MKNOD,
            // As runc, which leaves out what it does not know; `unknown_access` is what the user is told.
            _ => 0,
        };
    }
    if access == 0 {
        return Err(out_of_range("devices.access", format!("{text:?}"), "some of r, w and m"));
    }
    let kind = match rule.kind.as_deref().unwrap_or("a") {
        // "a" has always meant everything, whatever stands beside it (kernel's cgroup-v1/devices.rst).
        "a" => {
            return Ok(Some(Rule { allow: rule.allow, kind: None, major: None, minor: None, access: ALL }));
        }
        "b" => Kind::Block,
        "c" => Kind::Char,
        other => return Err(out_of_range("devices.type", format!("{other:?}"), "a, b or c")),
    };
    let number = |field: &str, value: Option<i64>| match value {
        None | Some(-1) => Ok(None),
        Some(value @ 0..) => Ok(Some(u32::try_from(value).unwrap_or(u32::MAX))),
        Some(value) => Err(out_of_range(field, value, "0 or more, or -1 for all")),
    };
    let major = number("devices.major", rule.major)?;
    let minor = number("devices.minor", rule.minor)?;
    if major.is_some_and(|n| n > MAX_MAJOR) || minor.is_some_and(|n| n > MAX_MINOR) {
        return Ok(None);
    }
    Ok(Some(Rule { allow: rule.allow, kind: Some(kind), major, minor, access }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(json: &str) -> Policy {
        Policy::new(&serde_json::from_str::<Vec<DeviceRule>>(json).unwrap()).unwrap()
    }

    #[test]
    fn default_specification_has_the_default_devices() {
        let policy = policy(r#"[{"allow":false,"access":"rwm"}]"#);
        assert_eq!(policy, Policy::new(&[]).unwrap());
        assert!(policy.rules.is_empty());
        assert!(policy.decide(Kind::Char, 1, 3, READ | WRITE));
        assert!(policy.decide(Kind::Char, 136, 5, ALL));
        assert!(policy.decide(Kind::Block, 8, 0, MKNOD));
        assert!(!policy.decide(Kind::Block, 8, 0, READ));
        assert!(!policy.decide(Kind::Char, 10, 200, READ));
        assert!(!policy.decide(Kind::Char, 5, 3, READ));
    }

    #[test]
    fn default_devices_cannot_be_denied() {
        let policy = policy(r#"[{"allow":true},{"allow":false,"type":"c","major":1,"minor":5}]"#);
        assert!(policy.allows_all());
        let policy = self::policy(r#"[{"allow":true},{"allow":false,"type":"c","major":1,"access":"w"}]"#);
        assert!(policy.decide(Kind::Char, 1, 5, WRITE));
        assert!(!policy.decide(Kind::Char, 1, 11, WRITE));
        assert!(policy.decide(Kind::Char, 1, 11, READ));
    }

    #[test]
    fn last_rule_decides_on_each_access_alone() {
        let policy = policy(
            r#"[{"allow":true,"type":"c","major":10,"access":"rw"},
                {"allow":false,"type":"c","major":10,"minor":200,"access":"w"}]"#,
        );
        assert!(policy.decide(Kind::Char, 10, 200, READ));
        assert!(!policy.decide(Kind::Char, 10, 200, READ | WRITE));
        assert!(policy.decide(Kind::Char, 10, 229, READ | WRITE));
        // Two rules that allow one access each allow both at once.
        let split = self::policy(
            r#"[{"allow":true,"type":"b","major":7,"access":"r"},
                {"allow":true,"type":"b","major":7,"access":"w"}]"#,
        );
        assert!(split.decide(Kind::Block, 7, 1, READ | WRITE));
    }

    #[test]
    fn privileged_needs_no_program() {
        assert!(policy(r#"[{"allow":true,"access":"rwm"}]"#).allows_all());
        assert!(!policy(r#"[{"allow":true},{"allow":false,"type":"b"}]"#).allows_all());
    }

    #[test]
    fn covered_rules_are_dropped() {
        let docker = r#"[{"allow":false,"access":"rwm"},
            {"allow":true,"type":"c","major":1,"minor":5,"access":"rwm"},
            {"allow":true,"type":"c","major":136,"minor":-1,"access":"rwm"}]"#;
        assert_eq!(policy(docker), Policy::new(&[]).unwrap());
        let doubled = r#"[{"allow":true,"type":"b","major":8,"minor":0,"access":"r"},
            {"allow":true,"type":"b","major":8,"access":"rw"}]"#;
        assert_eq!(policy(doubled).rules.len(), 1);
    }

    #[test]
    fn wrong_rules_are_refused_wherever_they_stand() {
        for wrong in [
            r#"[{"allow":true,"access":"x"},{"allow":false}]"#,
            r#"[{"allow":true,"access":""}]"#,
            r#"[{"allow":true,"type":"p"}]"#,
            r#"[{"allow":true,"type":"c","major":-2}]"#,
        ] {
            let rules: Vec<DeviceRule> = serde_json::from_str(wrong).unwrap();
            assert!(Policy::new(&rules).is_err(), "{wrong}");
        }
        let rules: Vec<DeviceRule> =
            serde_json::from_str(r#"[{"allow":true,"type":"c","access":"rwa"}]"#).unwrap();
        assert_eq!(Policy::new(&rules).unwrap().rules[0].access, READ | WRITE);
        assert_eq!(unknown_access(&rules).count(), 1);
        // Numbers that no device has match nothing, and are no error.
        assert_eq!(policy(r#"[{"allow":true,"type":"c","major":70000}]"#), Policy::new(&[]).unwrap());
    }

    #[test]
    fn records_hold_key_accesses_and_mask() {
        assert!(Policy::new(&[]).unwrap().records().is_empty());
        let policy = policy(r#"[{"allow":true},{"allow":false,"type":"c","major":10,"access":"w"}]"#);
        let access = u64::from(WRITE);
        let deny =
            (2 << KIND_SHIFT) | (10 << MAJOR_SHIFT) | ((access | access << DENY_SHIFT) << ACCESS_SHIFT);
        let mask = (3 << KIND_SHIFT) | (0xfff << MAJOR_SHIFT);
        assert_eq!(policy.records(), [deny, mask, 7 << ACCESS_SHIFT, 0]);
    }
}
