//! A function that the hypervisor uses itself is confined: it reaches the pages that its driver has been given, and nothing else of the
//! hypervisor's.

use super::unit::Refusal;
use super::{OWN_DOMAIN, Remapping};
use crate::ept::Ept;
use crate::memory::{GuestMemory, PAGE, Page, Pages, RegisterPage};
use alloc::boxed::Box;
use spin::Mutex;

/// Pages that are in the function's domain, one to one, from the moment on at which somebody gets them.
pub struct Confined<'a> {
    pages: &'a dyn Pages,
    tables: Mutex<Ept>,
}

impl Remapping {
    /// Puts a function into a domain of nothing but the pages that its driver takes from there.
    ///
    /// # Errors
    /// Why that is not possible.
    pub fn confine(&self, source: u16) -> Result<Confined<'static>, Refusal> {
        const SCARCE: Refusal = "there is no memory for its domain";
        let mut unit = self.unit(source)?;
        let mut tables = Ept::new(self.pages, false).ok_or(SCARCE)?;
        let top = tables.second_stage(self.pages, unit.levels()).ok_or(SCARCE)?;
        unit.attach(self.pages, source, OWN_DOMAIN, top)?;
        Ok(Confined { pages: self.pages, tables: Mutex::new(tables) })
    }
}

impl Confined<'_> {
    fn admit(&self, address: u64) -> Option<()> {
        self.tables.lock().map(self.pages, address, address, PAGE).then_some(())
    }
}

impl Pages for Confined<'_> {
    fn page(&self) -> Option<&'static Page> {
        let page = self.pages.page()?;
        self.admit(page.address()).map(|()| page)
    }

    fn register_page(&self) -> Option<&'static RegisterPage> {
        let page = self.pages.register_page()?;
        self.admit(page.address()).map(|()| page)
    }

    fn guest_memory(&self, _: u64) -> Option<Box<dyn GuestMemory>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{FUNCTION, with};
    use super::super::unit::tests::{CAPABILITY, EXTENDED};
    use super::*;

    #[test]
    fn the_domain_has_what_was_given_and_nothing_else() {
        let confined = with(CAPABILITY, EXTENDED).confine(FUNCTION).unwrap();
        assert_eq!(confined.tables.lock().mapped(), [0, 0]);
        let page = confined.page().unwrap().address();
        let registers = confined.register_page().unwrap().address();
        let tables = confined.tables.lock();
        assert_eq!(tables.mapped(), [2, 0]);
        for address in [page, registers] {
            assert_eq!(tables.walk(address + 8), Some(address + 8));
        }
        assert_eq!(tables.walk(0x10_0000), None);
        assert!(confined.guest_memory(2 << 20).is_none());
    }
}
