//! One logical processor.
