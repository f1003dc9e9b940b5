//! nf_tables: locule's own two tables, and nothing of anybody else's.
//!
//! `message` encodes, `expr` has the expressions that rules consist of, `schema` is the constant
//! number of chains and rules, `element` what changes with containers: elements of sets and maps.

pub mod element;
pub mod expr;
pub mod message;
pub mod schema;

use nix::errno::Errno;

use crate::error::{Error, Result};
use crate::sys::netlink::{Message, Request, Socket, walk};
use element::Element;
use message::{Family, NFTA_TABLE_USERDATA};

/// The tables, over one socket.
#[derive(Debug)]
pub struct Nft {
    socket: Socket,
}

impl Nft {
    /// In the caller's network namespace.
    pub fn open() -> Result<Nft> {
        let socket = Socket::netfilter()
            .map_err(|errno| Error::sys(errno, "opening a socket for nf_tables").needs_module("nf_tables"))?;
        Ok(Nft { socket })
    }

    fn commit(&mut self, requests: Vec<Request>) -> Result<(), crate::sys::netlink::Refusal> {
        self.socket.transact(message::batch_begin(), requests, message::batch_end())
    }

    /// Whose tables are there: the comment of the first, or `None` where there are none.
    pub fn owner(&mut self) -> Result<Option<String>> {
        match self.socket.get(message::get_table(Family::Inet)) {
            Ok(answer) => Ok(Some(comment(&answer))),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => {
                Err(Error::sys(errno, "looking for the table inet locule").needs_module("nf_tables"))
            }
        }
    }

    /// Makes both tables with `elements`, in place of what they held, at one moment.
    pub fn build(&mut self, comment: &str, elements: &[Element]) -> Result<()> {
        let mut requests = Vec::new();
        for family in [Family::Inet, Family::Bridge] {
            // Made, removed and made: so it works whether it was there or not, in one transaction.
            requests.push(message::new_table(family, comment));
            requests.push(message::delete_table(family));
            requests.push(message::new_table(family, comment));
        }
        let names = schema::requests(&mut requests);
        let fixed = requests.len();
        requests.extend(element::add_requests(elements));
        self.commit(requests).map_err(|refusal| {
            let what = match refusal.at {
                Some(at) if at < fixed => names.get(at.saturating_sub(6)).cloned().unwrap_or_default(),
                Some(_) => "elements".into(),
                None => "the transaction".into(),
            };
            let err = Error::sys(refusal.errno, format!("making locule's nf_tables ({what})"));
            match refusal.errno {
                Errno::ENOENT | Errno::EOPNOTSUPP => {
                    err.needs_module(schema::module_of(&what).unwrap_or("nf_tables"))
                }
                _ => err,
            }
        })
    }

    /// Adds elements, all or none.
    pub fn add(&mut self, elements: &[Element]) -> Result<()> {
        self.commit(element::add_requests(elements).collect()).map_err(|refusal| {
            let err = Error::sys(refusal.errno, "adding elements to locule's nf_tables");
            if refusal.errno == Errno::ENOENT {
                return err.hint("somebody removed the tables: `locule network gc` makes them anew");
            }
            err
        })
    }

    /// Removes elements; those that are not there are fine.
    pub fn remove(&mut self, elements: &[Element]) -> Result<()> {
        match self.commit(element::delete_requests(elements).collect()) {
            Ok(()) => return Ok(()),
            Err(refusal) if refusal.errno == Errno::ENOENT => {}
            Err(refusal) => {
                return Err(Error::sys(refusal.errno, "removing elements from locule's nf_tables"));
            }
        }
        // Somebody was here before: one by one, so that what is still there goes.
        for element in elements {
            match self.commit(element::delete_requests(std::slice::from_ref(element)).collect()) {
                Err(refusal) if refusal.errno != Errno::ENOENT => {
                    return Err(Error::sys(refusal.errno, "removing an element from locule's nf_tables"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// What the set holds.
    pub fn list(&mut self, set: &'static schema::Set) -> Result<Vec<element::Held>> {
        let messages = match self.socket.dump(&message::get_elements(set.family, set.name)) {
            Err(Errno::ENOENT) => return Ok(Vec::new()),
            other => other.map_err(|errno| Error::sys(errno, format!("listing the set {}", set.name)))?,
        };
        Ok(messages.iter().flat_map(|message| element::read(set, message)).collect())
    }

    /// Removes both tables.
    pub fn drop_tables(&mut self) -> Result<()> {
        for family in [Family::Inet, Family::Bridge] {
            match self.commit(vec![message::delete_table(family)]) {
                Err(refusal) if refusal.errno != Errno::ENOENT => {
                    return Err(Error::sys(refusal.errno, "removing locule's nf_tables"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The comment in a table's user data, which nft(8) shows as well.
fn comment(table: &Message) -> String {
    let data = table.attrs(4).find(|(kind, _)| *kind == NFTA_TABLE_USERDATA).map(|(_, value)| value);
    match data {
        Some([0, _, text @ ..]) => crate::sys::netlink::text_of(text),
        _ => String::new(),
    }
}

/// Attributes within an attribute of `attrs`.
fn inner<'a>(
    attrs: &mut impl Iterator<Item = (u16, &'a [u8])>,
    kind: u16,
) -> Option<crate::sys::netlink::Walk<'a>> {
    attrs.find(|(found, _)| *found == kind).map(|(_, value)| walk(value))
}
