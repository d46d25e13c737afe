//! The bare-metal programs of the tests (`guests/conformance`), built by cargo in their own profile.

use image::Layout;
use std::path::PathBuf;
use vanderpool::Error;

/// Builds the program of the workspace's package `name` and returns its file, a multiboot 1 ELF image.
///
/// # Errors
/// When cargo refuses.
pub fn build(name: &str) -> Result<PathBuf, Error> {
    image::build(name, name, &image::workspace().join("target"), Layout::Multiboot).map_err(Error::new)
}
