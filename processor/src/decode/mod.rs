//! From bytes to operations: iced-x86 decodes, a table indexed by iced's `Code` gives the handler, blocks are cached by physical page.

pub mod cache;
pub mod lower;
pub mod op;
pub mod table;

pub use op::{Handler, Op, Stop};
pub use table::{Entry, Table};
