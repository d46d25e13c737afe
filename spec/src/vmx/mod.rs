//! VT-x.
