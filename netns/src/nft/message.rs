//! Messages of nf_tables: tables, chains, rules, sets; their numbers are those of linux/netfilter/nf_tables.h.
//!
//! Encodes only. Holds no rule of locule's.

use crate::nft::schema::{Field, Set};
use crate::sys::netlink::{Attrs, CREATE, Request};

/// The name of both tables.
pub const TABLE: &str = "locule";

const SUBSYS: u16 = (libc::NFNL_SUBSYS_NFTABLES as u16) << 8;
const NEWTABLE: u16 = SUBSYS | libc::NFT_MSG_NEWTABLE as u16;
const GETTABLE: u16 = SUBSYS | libc::NFT_MSG_GETTABLE as u16;
const DELTABLE: u16 = SUBSYS | libc::NFT_MSG_DELTABLE as u16;
const NEWCHAIN: u16 = SUBSYS | libc::NFT_MSG_NEWCHAIN as u16;
const NEWRULE: u16 = SUBSYS | libc::NFT_MSG_NEWRULE as u16;
const NEWSET: u16 = SUBSYS | libc::NFT_MSG_NEWSET as u16;
/// `NFT_MSG_NEWSETELEM`.
pub const NEWSETELEM: u16 = SUBSYS | libc::NFT_MSG_NEWSETELEM as u16;
/// `NFT_MSG_DELSETELEM`.
pub const DELSETELEM: u16 = SUBSYS | libc::NFT_MSG_DELSETELEM as u16;
const GETSETELEM: u16 = SUBSYS | libc::NFT_MSG_GETSETELEM as u16;

const APPEND: u16 = (libc::NLM_F_CREATE | libc::NLM_F_APPEND) as u16;
const MAKE: u16 = libc::NLM_F_CREATE as u16;

const NFTA_LIST_ELEM: u16 = 1;
const NFTA_TABLE_NAME: u16 = 1;
/// Free bytes beside a table.
pub const NFTA_TABLE_USERDATA: u16 = 6;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_SET_TABLE: u16 = 1;
const NFTA_SET_NAME: u16 = 2;
const NFTA_SET_FLAGS: u16 = 3;
const NFTA_SET_KEY_TYPE: u16 = 4;
const NFTA_SET_KEY_LEN: u16 = 5;
const NFTA_SET_DATA_TYPE: u16 = 6;
const NFTA_SET_DATA_LEN: u16 = 7;
const NFTA_SET_ID: u16 = 10;
const NFTA_SET_USERDATA: u16 = 13;
const NFTA_SET_EXPR: u16 = 17;
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
/// The elements of a message about elements.
pub const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;

/// Which packets a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet,
    /// Frames between ports of a bridge.
    Bridge,
}

impl Family {
    fn number(self) -> u8 {
        match self {
            Family::Inet => 1,
            Family::Bridge => 7,
        }
    }

    fn body(self) -> [u8; 4] {
        [self.number(), 0, 0, 0]
    }
}

/// Begins a transaction.
pub fn batch_begin() -> Request {
    Request::new(libc::NFNL_MSG_BATCH_BEGIN as u16, 0, &batch_body(), Attrs::new())
}

/// Ends a transaction.
pub fn batch_end() -> Request {
    Request::new(libc::NFNL_MSG_BATCH_END as u16, 0, &batch_body(), Attrs::new())
}

fn batch_body() -> [u8; 4] {
    let [high, low] = (libc::NFNL_SUBSYS_NFTABLES as u16).to_be_bytes();
    [0, 0, high, low]
}

/// Makes the table of a family, unless it is there.
pub fn new_table(family: Family, comment: &str) -> Request {
    // nft(8) keeps a comment as type 0, length, text with its NUL.
    let text = &comment.as_bytes()[..comment.len().min(250)];
    let data = [&[0, text.len() as u8 + 1], text, &[0]].concat();
    let attrs = Attrs::new().text(NFTA_TABLE_NAME, TABLE).put(NFTA_TABLE_USERDATA, &data);
    Request::new(NEWTABLE, MAKE, &family.body(), attrs)
}

/// Removes the table of a family with all in it.
pub fn delete_table(family: Family) -> Request {
    Request::new(DELTABLE, 0, &family.body(), Attrs::new().text(NFTA_TABLE_NAME, TABLE))
}

/// Asks for the table of a family.
pub fn get_table(family: Family) -> Request {
    Request::new(GETTABLE, 0, &family.body(), Attrs::new().text(NFTA_TABLE_NAME, TABLE))
}

/// Makes a base chain.
pub fn new_chain(family: Family, name: &str, kind: &str, hook: u32, priority: i32) -> Request {
    let hook = Attrs::new().be32(NFTA_HOOK_HOOKNUM, hook).be32(NFTA_HOOK_PRIORITY, priority as u32);
    let attrs = Attrs::new()
        .text(NFTA_CHAIN_TABLE, TABLE)
        .text(NFTA_CHAIN_NAME, name)
        .nest(NFTA_CHAIN_HOOK, hook)
        .be32(NFTA_CHAIN_POLICY, libc::NF_ACCEPT as u32)
        .text(NFTA_CHAIN_TYPE, kind);
    Request::new(NEWCHAIN, CREATE, &family.body(), attrs)
}

/// Makes a chain that others go to.
pub fn new_plain_chain(family: Family, name: &str) -> Request {
    let attrs = Attrs::new().text(NFTA_CHAIN_TABLE, TABLE).text(NFTA_CHAIN_NAME, name);
    Request::new(NEWCHAIN, CREATE, &family.body(), attrs)
}

/// Appends a rule to a chain.
pub fn new_rule(family: Family, chain: &str, expressions: &[Attrs]) -> Request {
    let list = expressions.iter().fold(Attrs::new(), |list, expr| list.nest(NFTA_LIST_ELEM, expr.clone()));
    let attrs = Attrs::new()
        .text(NFTA_RULE_TABLE, TABLE)
        .text(NFTA_RULE_CHAIN, chain)
        .nest(NFTA_RULE_EXPRESSIONS, list);
    Request::new(NEWRULE, APPEND, &family.body(), attrs)
}

/// Makes a set or a map; `id` tells it apart within the transaction.
pub fn new_set(set: &Set, id: u32, counter: Option<Attrs>) -> Request {
    let mut attrs = Attrs::new()
        .text(NFTA_SET_TABLE, TABLE)
        .text(NFTA_SET_NAME, set.name)
        .be32(NFTA_SET_FLAGS, set.flags())
        .be32(NFTA_SET_KEY_TYPE, set.key_type())
        .be32(NFTA_SET_KEY_LEN, set.key_len())
        .be32(NFTA_SET_ID, id);
    if set.verdicts {
        attrs = attrs.be32(NFTA_SET_DATA_TYPE, set.data_type());
    } else if !set.data.is_empty() {
        attrs = attrs.be32(NFTA_SET_DATA_TYPE, set.data_type()).be32(NFTA_SET_DATA_LEN, set.data_len());
    }
    if set.key == [Field::Ifname] {
        // Tells nft(8) that the key is in host order: else it shows names as empty.
        attrs = attrs.put(NFTA_SET_USERDATA, &[&[0, 4], 1u32.to_ne_bytes().as_slice()].concat());
    }
    if let Some(counter) = counter {
        attrs = attrs.nest(NFTA_SET_EXPR, counter);
    }
    Request::new(NEWSET, MAKE, &set.family.body(), attrs)
}

/// Adds (`NEWSETELEM`) or removes (`DELSETELEM`) elements.
pub fn elements(kind: u16, set: &Set, list: Attrs) -> Request {
    let attrs = Attrs::new()
        .text(NFTA_SET_ELEM_LIST_TABLE, TABLE)
        .text(NFTA_SET_ELEM_LIST_SET, set.name)
        .nest(NFTA_SET_ELEM_LIST_ELEMENTS, list);
    Request::new(kind, if kind == NEWSETELEM { MAKE } else { 0 }, &set.family.body(), attrs)
}

/// Asks for all elements of a set.
pub fn get_elements(family: Family, name: &str) -> Request {
    let attrs = Attrs::new().text(NFTA_SET_ELEM_LIST_TABLE, TABLE).text(NFTA_SET_ELEM_LIST_SET, name);
    Request::new(GETSETELEM, 0, &family.body(), attrs)
}
