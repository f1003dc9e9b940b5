//! The systemd manager: a transient scope around the container's first process.
//!
//! Speaks D-Bus to the system's or the user's systemd and waits for its jobs. It knows units, not
//! files: the limits that systemd lacks are written by the caller.

mod bus;
mod properties;
mod text;
mod value;

pub(super) use properties::round_quota;

use std::time::Duration;

use super::path::Unit;
use super::plan::Limits;
use crate::error::{Error, Kind, Result};
use crate::spec::StringMap;
use bus::{Address, Bus, Failure, parse_addresses};
use properties::Property;
use value::Value;

/// How long systemd may take for one request, the job included (as runc).
const LIMIT: Duration = Duration::from_secs(30);

const DEST: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";

/// What a scope gets besides its limits, from the annotations `org.systemd.property.*`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Extra(Vec<Property>);

impl Extra {
    /// Reads the annotations; everything wrong with them is refused here.
    pub fn new(annotations: &StringMap) -> Result<Extra> {
        text::properties(annotations).map(Extra)
    }
}

/// Makes the scope `unit` with the process `pid` in it, and waits until it stands.
pub(super) fn start_scope(user: bool, unit: &Unit, pid: i32, limits: &Limits, extra: &Extra) -> Result<()> {
    let description = format!("container {}", unit.scope.trim_end_matches(".scope"));
    let mut wanted = properties::of_scope(&unit.slice, &description, pid);
    wanted.extend(properties::of_limits(limits, true));
    for (name, value) in &extra.0 {
        wanted.retain(|(have, _)| have != name);
        wanted.push((name.clone(), value.clone()));
    }
    let doing = || format!("starting the systemd scope {}", unit.scope);
    let args = [
        Value::str(&unit.scope),
        Value::str("replace"),
        list(wanted),
        Value::Array("(sa(sv))".to_owned(), Vec::new()),
    ];
    let mut bus = connect(user, Some(&unit.scope)).map_err(|err| err.context(doing()))?;
    let mut answer = call(&mut bus, "StartTransientUnit", &args);
    if matches!(&answer, Err(Failure::Refused { name, .. }) if name == UNIT_EXISTS) {
        // A failed unit of that name keeps it until it is reset; one that runs is refused again.
        let _ = call(&mut bus, "ResetFailedUnit", &[Value::str(&unit.scope)]);
        answer = call(&mut bus, "StartTransientUnit", &args);
    }
    let job = answer.map_err(|failure| explain(failure, doing()))?;
    let result = wait_for(&mut bus, &job).map_err(|err| err.context(doing()));
    match result.as_deref() {
        Ok("done") => Ok(()),
        Ok(other) => {
            let err = Error::new(Kind::System, format!("{}: systemd's job ended with \"{other}\"", doing()));
            let _ = call(&mut bus, "ResetFailedUnit", &[Value::str(&unit.scope)]);
            Err(err.hint("systemctl status and the journal say why"))
        }
        Err(_) => result.map(drop),
    }
}

/// Changes the limits that systemd knows, until the unit ends.
pub(super) fn set_limits(user: bool, unit: &Unit, limits: &Limits) -> Result<()> {
    let wanted = properties::of_limits(limits, false);
    if wanted.is_empty() {
        return Ok(());
    }
    let args = [Value::str(&unit.scope), Value::Bool(true), list(wanted)];
    again_if_lost(user, None, |bus| call(bus, "SetUnitProperties", &args))
        .map(drop)
        .map_err(|failure| explain(failure, format!("changing the systemd scope {}", unit.scope)))
}

/// Ends the scope and forgets it. One that is gone is no error.
pub(super) fn stop_scope(user: bool, unit: &Unit) -> Result<()> {
    let doing = || format!("stopping the systemd scope {}", unit.scope);
    let stop = |bus: &mut Bus| {
        let stopped = call(bus, "StopUnit", &[Value::str(&unit.scope), Value::str("replace")]);
        match stopped {
            Err(Failure::Refused { name, .. }) if name == NO_SUCH_UNIT => {}
            Err(other) => return Err(other),
            // However the job ends, what is left of the cgroup is removed next.
            Ok(job) => drop(wait_for(bus, &job).map_err(Failure::Lost)?),
        }
        // Without this a scope that failed would keep its name.
        match call(bus, "ResetFailedUnit", &[Value::str(&unit.scope)]) {
            Err(Failure::Lost(err)) => Err(Failure::Lost(err)),
            _ => Ok(()),
        }
    };
    again_if_lost(user, Some(&unit.scope), stop).map_err(|failure| explain(failure, doing()))
}

/// Forgets the scope if it failed. All else is as well: it is unknown, or systemd is out of reach.
pub(super) fn forget_scope(user: bool, unit: &Unit) {
    if let Ok(mut bus) = connect(user, None) {
        let _ = call(&mut bus, "ResetFailedUnit", &[Value::str(&unit.scope)]);
    }
}

fn list(properties: Vec<Property>) -> Value {
    let pair = |(name, value)| Value::Struct(vec![Value::Str(name), Value::Variant(Box::new(value))]);
    Value::Array("(sv)".to_owned(), properties.into_iter().map(pair).collect())
}

fn call(bus: &mut Bus, member: &str, args: &[Value]) -> Result<Vec<Value>, Failure> {
    bus.call(DEST, PATH, MANAGER, member, args)
}

/// Runs `act`, and once more on a new connection where the first one broke: a bus that restarts
/// must not cost a container. Only for what may be done twice.
fn again_if_lost<T>(
    user: bool,
    watched: Option<&str>,
    act: impl Fn(&mut Bus) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let once = || act(&mut connect(user, watched).map_err(Failure::Lost)?);
    match once() {
        Err(Failure::Lost(err)) if err.errno() != Some(nix::errno::Errno::ETIMEDOUT) => once(),
        other => other,
    }
}

/// Connects; with `watched` the ends of this unit's jobs are told.
fn connect(user: bool, watched: Option<&str>) -> Result<Bus> {
    let mut bus = Bus::connect(&addresses(user, |name| std::env::var(name).ok()), LIMIT).map_err(|err| {
        let what = if user { "the user's systemd" } else { "systemd" };
        err.context(format!("connecting to {what}")).hint(if user {
            "set DBUS_SESSION_BUS_ADDRESS or XDG_RUNTIME_DIR, or use --cgroup-manager=cgroupfs"
        } else {
            "is systemd running here? else use --cgroup-manager=cgroupfs"
        })
    })?;
    // systemd itself tells everything to direct connections. On a bus it tells the ends of jobs to
    // whom it owes them, so there is no need to subscribe to those of the whole system.
    if let Some(unit) = watched.filter(|_| !bus.is_direct()) {
        let rule = format!(
            "type='signal',sender='{DEST}',path='{PATH}',interface='{MANAGER}',member='JobRemoved',arg2='{unit}'"
        );
        let bus_name = "org.freedesktop.DBus";
        bus.send(bus_name, "/org/freedesktop/DBus", bus_name, "AddMatch", &[Value::Str(rule)])?;
    }
    Ok(bus)
}

/// Where the bus may be: what the environment says, the well-known place, systemd's own socket
/// (all that the nodes of kind have).
fn addresses(user: bool, env: impl Fn(&str) -> Option<String>) -> Vec<Address> {
    let (variable, base, bus) = match user {
        // Clean-up calls of engines come without an environment: then the place that logind makes.
        true => {
            let place = || format!("/run/user/{}", nix::unistd::geteuid());
            ("DBUS_SESSION_BUS_ADDRESS", env("XDG_RUNTIME_DIR").unwrap_or_else(place), "bus")
        }
        false => ("DBUS_SYSTEM_BUS_ADDRESS", "/run".to_owned(), "dbus/system_bus_socket"),
    };
    let mut found = env(variable).map_or(Vec::new(), |text| parse_addresses(&text));
    let at = |path: &str, direct| Address { path: format!("{base}/{path}"), abstract_name: false, direct };
    found.extend([at(bus, false), at("systemd/private", true)]);
    found
}

/// Waits for the end of the job that a call answered with, and tells its result.
fn wait_for(bus: &mut Bus, answer: &[Value]) -> Result<String> {
    let job = answer.first().and_then(Value::as_str).unwrap_or_default();
    loop {
        let signal = bus.signal()?;
        if let ("JobRemoved", [_, path, _, result, ..]) = (&*signal.member, &signal.args[..])
            && path.as_str() == Some(job)
        {
            return Ok(result.as_str().unwrap_or_default().to_owned());
        }
    }
}

fn explain(failure: Failure, doing: String) -> Error {
    match failure {
        Failure::Lost(err) => err.context(doing),
        Failure::Refused { name, text } => {
            let short = name.rsplit('.').next().unwrap_or(&name);
            let err = Error::new(Kind::System, format!("{doing}: {text} ({short})"));
            match short {
                "UnitExists" => err
                    .hint("a unit of that name is active: the container's cgroup is not empty: name another"),
                "AccessDenied" | "InteractiveAuthorizationRequired" => {
                    err.hint("only root may do this with the system's systemd")
                }
                "PropertyReadOnly" | "UnknownProperty" | "InvalidArgs" => {
                    err.hint("look at the annotations org.systemd.property.* and at the limits")
                }
                _ => err,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buses_are_looked_for_in_order() {
        let env = |name: &str| match name {
            "DBUS_SESSION_BUS_ADDRESS" => Some("unix:path=/x/bus".to_owned()),
            "XDG_RUNTIME_DIR" => Some("/run/user/7".to_owned()),
            _ => None,
        };
        let paths = |user, env: &dyn Fn(&str) -> Option<String>| {
            addresses(user, env).into_iter().map(|a| (a.path, a.direct)).collect::<Vec<_>>()
        };
        let own = |path: &str, direct| (path.to_owned(), direct);
        assert_eq!(
            paths(true, &env),
            [own("/x/bus", false), own("/run/user/7/bus", false), own("/run/user/7/systemd/private", true)]
        );
        assert_eq!(
            paths(false, &env),
            [own("/run/dbus/system_bus_socket", false), own("/run/systemd/private", true)]
        );
        let logind = format!("/run/user/{}/bus", nix::unistd::geteuid());
        assert_eq!(paths(true, &|_| None)[0], own(&logind, false));
    }

    #[test]
    fn refusals_keep_the_words_of_systemd() {
        let failure =
            Failure::Refused { name: UNIT_EXISTS.to_owned(), text: "Unit x.scope exists.".to_owned() };
        let text = explain(failure, "starting the systemd scope x.scope".to_owned()).to_string();
        assert!(text.contains("Unit x.scope exists. (UnitExists): a unit of that name is active"), "{text}");
    }
}
