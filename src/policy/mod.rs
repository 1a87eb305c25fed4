//! Policy: what must go, when, and what must stay. Pure: no I/O, no clock, no randomness.
//!
//! [`start`] reads a record's start event, [`calendar`] counts from it, [`statute`] adds what the law wants, [`hold`] suspends
//! it all. [`keep`] says which snapshots are kept, [`hours`] when people work. [`classification`] says how a field is sealed and who must agree, [`mask`] what may be shown of it, [`free_text`]
//! what people may write in clear; [`anonymise`] takes from values what leads to a person. [`registry`] is the configuration's side of this. Whatever is in doubt is kept: an error here never makes a record due.

pub mod anonymise;
pub mod calendar;
pub mod classification;
pub mod free_text;
pub mod hold;
pub mod hours;
pub mod keep;
pub mod mask;
pub mod media;
pub mod registry;
pub mod start;
pub mod statute;
