//! What a debugger does to a machine. It changes nothing that a guest can see unless it is told to.

use crate::run::Machine;
use processor::Cpu;
use processor::debugger::{Breakpoint, Watchpoint};
use processor::run::Activity;

impl Machine {
    /// Replaces the breakpoints and watchpoints of every processor. A run that meets one ends in [`crate::Outcome::Debug`] and is taken up again
    /// by [`Machine::run`].
    pub fn set_debug_points(&mut self, breakpoints: &[Breakpoint], watchpoints: &[Watchpoint]) {
        if let Some(cpu) = self.cpus.first() {
            self.code.set_stops(&cpu.ram, breakpoints.iter().map(|breakpoint| breakpoint.linear));
        }
        for cpu in &mut self.cpus {
            cpu.set_debug_points(breakpoints.to_vec(), watchpoints.to_vec());
            cpu.set_debug_step(false);
        }
    }

    /// Ends the next run when processor `index` has done one instruction. The other processors have their turns as ever.
    pub fn step_processor(&mut self, index: usize) {
        if let Some(cpu) = self.cpus.get_mut(index) {
            cpu.set_debug_step(true);
        }
    }

    /// Processor `index`, to be changed.
    pub fn processor_mut(&mut self, index: usize) -> Option<&mut Cpu> {
        self.cpus.get_mut(index)
    }

    /// The processor whose turn it is, or was last; one that executes instructions, if there is one.
    pub fn current_processor(&self) -> usize {
        if let Some(paused) = &self.paused {
            return paused.index;
        }
        let count = self.cpus.len();
        let backwards = (1..=count).map(|back| (self.turn + count - back) % count);
        backwards.clone().find(|&index| self.cpus[index].activity == Activity::Active).or(backwards.max()).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use crate::boot::firmware::Firmware;
    use crate::{Boot, Config, Machine, NoHost, Outcome};
    use processor::debugger::{Breakpoint, Scope, Stopped};

    /// Two processors, of which one loops at F000:FFF0 with a store to memory.
    fn machine() -> Machine {
        let mut image = vec![0x90; 0x1_0000];
        // mov [bx], ax; inc ax; jmp back
        image[0xfff0..0xfff5].copy_from_slice(&[0x89, 0x07, 0x40, 0xeb, 0xfb]);
        let mut config = Config::new(Boot::Firmware(Firmware::new(image).expect("64 KiB are an image")));
        config.processors = 2;
        config.memory = 16 << 20;
        Machine::new(config).expect("a machine")
    }

    #[test]
    fn a_run_with_stops_ends_like_one_without() {
        let mut plain = machine();
        assert_eq!(plain.run(&mut NoHost, Some(100_000)), Outcome::InstructionLimit);
        let mut stopped = machine();
        stopped.set_debug_points(&[Breakpoint { linear: 0xffff_fff2, scope: Scope::Any }], &[]);
        let mut stops = 0;
        loop {
            match stopped.run(&mut NoHost, Some(100_000)) {
                Outcome::Debug { processor, stopped: why } => {
                    assert_eq!(processor, 0);
                    assert!(matches!(why, Stopped::Breakpoint | Stopped::Step));
                    stops += 1;
                    if stops % 2 == 0 {
                        stopped.step_processor(0);
                    }
                    if stops == 1000 {
                        stopped.set_debug_points(&[], &[]);
                    }
                }
                outcome => break assert_eq!(outcome, Outcome::InstructionLimit),
            }
        }
        assert_eq!(stops, 1000);
        assert_eq!((stopped.now(), stopped.digest()), (plain.now(), plain.digest()));
    }
}
