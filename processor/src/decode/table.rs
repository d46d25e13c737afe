//! The table from iced's `Code` to handlers.

use super::op::{Forms, Handler, Op};
use crate::branch;
use crate::cpu::Cpu;
use crate::integer::fused::ByCondition;
use crate::trap::Exec;
use iced_x86::Code;
use std::sync::LazyLock;

/// What an instruction does to the block it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The next instruction follows.
    Inside,
    /// The block ends after it: branches, what changes how code is fetched or run, and serializing instructions (SDM vol. 3A, 9.3), after which
    /// code that another processor wrote is to be seen.
    Ends,
    /// The block ends after the instruction that follows: events held back for one instruction are looked at then (STI).
    EndsAfterNext,
}

/// The handlers of one `Code`.
#[derive(Clone, Copy)]
pub struct Entry {
    /// Operands all registers or immediates.
    pub reg: Handler,
    /// One operand in memory.
    pub mem: Forms,
    /// The same where the status flags it writes are dead.
    pub reg_dead: Option<Handler>,
    /// The same.
    pub mem_dead: Option<Forms>,
    /// Inside a block or ending it.
    pub place: Place,
    /// The register form cannot trap, so a flag that is dead after it is dead before it.
    pub reg_cannot_trap: bool,
    /// It is a conditional branch, on this condition.
    pub condition: Option<u8>,
    /// Handlers that do the following conditional branch too, by condition: for registers, for memory operands, for flat ones.
    pub fused: Option<[&'static ByCondition; 3]>,
    /// Handlers for code where CET is on, for both forms.
    pub cet: Option<[Handler; 2]>,
    /// Put into [`Op::size`].
    pub size: u8,
    /// Somebody registered it.
    pub known: bool,
}

/// The whole table.
pub struct Table {
    entries: Box<[Entry]>,
}

fn undefined(cpu: &mut Cpu, _op: &Op) -> Exec {
    Err(cpu.undefined_opcode())
}

/// The handler of what does not exist: #UD.
pub fn undefined_handler() -> Handler {
    branch!(undefined)
}

impl Table {
    /// Registers handlers for both forms of an instruction that stays inside a block.
    pub fn set(&mut self, code: Code, reg: impl Into<Forms>, mem: impl Into<Forms>) -> &mut Entry {
        let entry = &mut self.entries[code as usize];
        debug_assert!(!entry.known, "{code:?} is registered twice");
        *entry = Entry {
            reg: reg.into().any,
            mem: mem.into(),
            reg_dead: None,
            mem_dead: None,
            place: Place::Inside,
            reg_cannot_trap: false,
            condition: None,
            fused: None,
            cet: None,
            size: 0,
            known: true,
        };
        entry
    }

    /// Registers one handler for both forms (it looks at the operand itself, or there is just one form).
    pub fn one(&mut self, code: Code, handler: impl Into<Forms>) -> &mut Entry {
        let handler = handler.into();
        self.set(code, handler, handler)
    }

    /// Registers a handler made with `branch!` or `last!`: the block ends after the instruction.
    pub fn end(&mut self, code: Code, handler: Handler) -> &mut Entry {
        let entry = self.set(code, handler, handler);
        entry.place = Place::Ends;
        entry
    }

    /// Adds the forms that do the following conditional branch too, by its condition.
    pub fn fuse(&mut self, code: Code, forms: [&'static ByCondition; 3]) {
        self.entries[code as usize].fused = Some(forms);
    }

    /// Sets the handlers of a registered code where CET is on.
    pub fn with_cet(&mut self, code: Code, reg: Handler, mem: Handler) {
        self.entries[code as usize].cet = Some([reg, mem]);
    }

    /// The entry of `code`.
    #[inline]
    pub fn get(&self, code: Code) -> &Entry {
        &self.entries[code as usize]
    }

    /// The one table.
    pub fn shared() -> &'static Table {
        static TABLE: LazyLock<Table> = LazyLock::new(Table::build);
        &TABLE
    }

    fn build() -> Table {
        let nothing = Entry {
            reg: undefined_handler(),
            mem: undefined_handler().into(),
            reg_dead: None,
            mem_dead: None,
            place: Place::Ends,
            reg_cannot_trap: false,
            condition: None,
            fused: None,
            cet: None,
            size: 0,
            known: false,
        };
        let count = Code::values().len();
        let mut table = Table { entries: vec![nothing; count].into_boxed_slice() };
        crate::integer::register(&mut table);
        crate::system::register(&mut table);
        crate::x87::register(&mut table);
        crate::simd::register(&mut table);
        crate::vmx::instructions::register(&mut table);
        crate::cet::register(&mut table);
        table
    }
}

impl Entry {
    /// Sets the operand size.
    pub fn sized(&mut self, size: u8) -> &mut Self {
        self.size = size;
        self
    }

    /// Adds the forms for dead flags; the register form is known not to trap.
    pub fn dead(&mut self, reg: Handler, mem: impl Into<Forms>) -> &mut Self {
        self.reg_dead = Some(reg);
        self.mem_dead = Some(mem.into());
        self
    }

    /// It is a conditional branch.
    pub fn jumps(&mut self, condition: u8) -> &mut Self {
        self.condition = Some(condition);
        self
    }

    /// The register form cannot trap.
    pub fn safe(&mut self) -> &mut Self {
        self.reg_cannot_trap = true;
        self
    }
}
