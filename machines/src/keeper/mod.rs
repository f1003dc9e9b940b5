//! The keeper: the one process that stays beside a running machine.
//!
//! Owns the machine's console, its log, its end and what is done then. Parses nothing that the machine wrote.
