//! gdb's remote protocol: `vanderpool boot --gdb`, then `target remote` in gdb.
//!
//! Each processor is a thread. Memory is seen through the paging and EPT of the thread's processor as it is now, so in L2 by L2's addresses.
//! The machine runs in turns as it does without gdb; a stop ends neither a turn nor anything else that the guest could notice, so a run in
//! which gdb only looks ends in the same digest.

mod monitor;
mod registers;
mod target;

use crate::Error;
use crate::boot::HostConsole;
use gdbstub::common::Signal;
use gdbstub::stub::state_machine::{GdbStubStateMachine, GdbStubStateMachineInner, state};
use gdbstub::stub::{DisconnectReason, GdbStub, GdbStubError, MultiThreadStopReason};
use gdbstub::target::ext::breakpoints::WatchKind;
use machine::{Host, HostEvent, Machine, Outcome};
use processor::debugger::Stopped;
use std::convert::Infallible;
use std::io::{ErrorKind, Read};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;
use target::{Debugged, thread as thread_of};

/// Where gdb is waited for unless told otherwise.
pub const DEFAULT_ADDRESS: &str = "127.0.0.1:1234";
/// Between two looks at signals while the machine stands still.
const LOOK: Duration = Duration::from_millis(100);

type Stop = MultiThreadStopReason<u64>;
type Stub<'a, 'b> = GdbStubStateMachine<'a, Debugged<'b>, TcpStream>;

/// Listens at `address`: a port, or address and port; without an address, on the loopback only.
///
/// # Errors
/// When that cannot be.
pub fn listen(address: &str) -> Result<TcpListener, Error> {
    let full = if address.contains(':') { address.to_owned() } else { format!("127.0.0.1:{address}") };
    let cannot = |why: &dyn std::fmt::Display| Error::new(format!("cannot wait for gdb at {full}: {why}"));
    let listener = TcpListener::bind(&full).map_err(|error| cannot(&error))?;
    listener.set_nonblocking(true).map_err(|error| cannot(&error))?;
    let at = listener.local_addr().map_err(|error| cannot(&error))?;
    eprintln!("vanderpool: gdb: target remote {at}");
    Ok(listener)
}

/// Runs `machine` to its end; gdb may come, go and come again. With `wait`, the machine stands still until it has come.
///
/// # Errors
/// When the connection cannot be used at all.
pub(crate) fn run(
    machine: &mut Machine,
    console: &mut HostConsole,
    limit: Option<u64>,
    listener: &TcpListener,
    wait: bool,
) -> Result<Outcome, Error> {
    let mut connection = if wait { wait_for_gdb(console, listener) } else { None };
    loop {
        let Some(stream) = connection.take() else {
            if console.stopping() {
                return Ok(Outcome::Interrupted);
            }
            let mut host =
                Door { console: &mut *console, listener: Some(listener), stream: None, arrived: None, spoke: false };
            let outcome = machine.run(&mut host, limit);
            match host.arrived.take() {
                Some(stream) if outcome == Outcome::Interrupted => connection = Some(stream),
                _ => return Ok(outcome),
            }
            continue;
        };
        stream
            .set_nonblocking(false)
            .and_then(|()| stream.set_nodelay(true))
            .map_err(|e| Error::new(format!("gdb: {e}")))?;
        match Session::new(machine, console, limit).serve(stream) {
            End::Machine(outcome) => return Ok(outcome),
            End::Detached => {}
        }
    }
}

fn wait_for_gdb(console: &HostConsole, listener: &TcpListener) -> Option<TcpStream> {
    while !console.stopping() {
        if let Ok((stream, _)) = listener.accept() {
            return Some(stream);
        }
        thread::sleep(LOOK / 4);
    }
    None
}

/// The machine's host while it runs: the console, and the door at which gdb knocks.
struct Door<'a> {
    console: &'a mut HostConsole,
    /// For new connections, while there is none.
    listener: Option<&'a TcpListener>,
    /// The connection there is.
    stream: Option<TcpStream>,
    arrived: Option<TcpStream>,
    /// gdb has sent something, or has gone.
    spoke: bool,
}

impl Door<'_> {
    fn knock(&mut self) -> Option<HostEvent> {
        if let Some(listener) = self.listener
            && let Ok((stream, _)) = listener.accept()
        {
            self.arrived = Some(stream);
            return Some(HostEvent::Stop);
        }
        let stream = self.stream.as_ref()?;
        self.spoke = match stream.peek(&mut [0]) {
            Ok(_) => true,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        };
        self.spoke.then_some(HostEvent::Stop)
    }
}

impl Host for Door<'_> {
    fn poll(&mut self) -> Option<HostEvent> {
        self.knock().or_else(|| self.console.poll())
    }

    fn wait(&mut self, limit: Duration) -> Option<HostEvent> {
        self.knock().or_else(|| self.console.wait(limit.min(LOOK)))
    }

    fn interactive(&self) -> bool {
        self.console.interactive()
    }

    fn interrupts(&mut self) -> bool {
        self.console.interrupts()
    }
}

/// The session is over by an error: tells it, unless it is only that the connection has gone.
fn tell(error: GdbStubError<Infallible, std::io::Error>) {
    if !error.is_connection_error() {
        eprintln!("vanderpool: gdb: {error}");
    }
}

/// How a session ended.
enum End {
    Machine(Outcome),
    /// gdb has gone; the machine goes on.
    Detached,
}

/// One connection.
struct Session<'a> {
    debugged: Debugged<'a>,
    console: &'a mut HostConsole,
    limit: Option<u64>,
    /// The machine has ended; it is told to gdb when it next continues.
    over: Option<Outcome>,
}

impl<'a> Session<'a> {
    fn new(machine: &'a mut Machine, console: &'a mut HostConsole, limit: Option<u64>) -> Self {
        Self { debugged: Debugged::new(machine), console, limit, over: None }
    }

    fn serve(mut self, stream: TcpStream) -> End {
        let stub = GdbStub::builder(stream).packet_buffer_size(0x4000).build();
        let stub = stub.map_err(drop).and_then(|stub| stub.run_state_machine(&mut self.debugged).map_err(tell));
        let Ok(mut stub) = stub else { return End::Detached };
        let end = loop {
            let next = match stub {
                GdbStubStateMachine::Idle(idle) => {
                    let Some(idle) = self.wait(idle) else { break End::Machine(Outcome::Interrupted) };
                    idle
                }
                GdbStubStateMachine::Running(running) => self.resume(running),
                GdbStubStateMachine::CtrlCInterrupt(interrupt) => {
                    let tid = thread_of(self.debugged.machine.current_processor());
                    let reason = Stop::SignalWithThread { tid, signal: Signal::SIGINT };
                    interrupt.interrupt_handled(&mut self.debugged, Some(reason)).map_err(tell)
                }
                GdbStubStateMachine::Disconnected(gone) => {
                    break match (gone.get_reason(), self.over.take()) {
                        (_, Some(outcome)) => End::Machine(outcome),
                        (DisconnectReason::Kill, None) => End::Machine(Outcome::Interrupted),
                        _ => End::Detached,
                    };
                }
            };
            stub = match next {
                Ok(next) => next,
                // The connection broke, which is as good as a detach.
                Err(()) => break self.over.take().map_or(End::Detached, End::Machine),
            };
        };
        self.debugged.disarm();
        end
    }

    /// The machine stands still; gdb speaks. None: a signal ends everything.
    #[allow(clippy::type_complexity, reason = "the crate's own types")]
    fn wait<'s>(
        &mut self,
        mut idle: GdbStubStateMachineInner<'s, state::Idle<Debugged<'a>>, Debugged<'a>, TcpStream>,
    ) -> Option<Result<Stub<'s, 'a>, ()>> {
        let stream = idle.borrow_conn();
        let mut byte = [0];
        loop {
            if self.console.stopping() {
                return None;
            }
            let ready = stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(Some(LOOK)));
            match ready.and_then(|()| stream.read(&mut byte)) {
                Ok(1..) => break,
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {
                }
                Ok(0) | Err(_) => return Some(Err(())),
            }
        }
        Some(idle.incoming_data(&mut self.debugged, byte[0]).map_err(tell))
    }

    /// Runs the machine until something is to be told to gdb, or it says something.
    fn resume<'s>(
        &mut self,
        mut running: GdbStubStateMachineInner<'s, state::Running, Debugged<'a>, TcpStream>,
    ) -> Result<Stub<'s, 'a>, ()> {
        if self.over.is_some() {
            return self.tell_end(running);
        }
        let stream = running.borrow_conn().try_clone().map_err(drop)?;
        stream.set_nonblocking(true).map_err(drop)?;
        let mut host =
            Door { console: &mut *self.console, listener: None, stream: Some(stream), arrived: None, spoke: false };
        let outcome = self.debugged.machine.run(&mut host, self.limit);
        let spoke = host.spoke;
        let stream = running.borrow_conn();
        stream.set_nonblocking(false).map_err(drop)?;
        match outcome {
            Outcome::Interrupted if spoke => {
                let mut byte = [0];
                match stream.read(&mut byte) {
                    Ok(1..) => running.incoming_data(&mut self.debugged, byte[0]).map_err(tell),
                    _ => Err(()),
                }
            }
            Outcome::Debug { processor, stopped } => {
                let tid = thread_of(processor);
                let reason = match stopped {
                    Stopped::Breakpoint => Stop::SwBreak(tid),
                    Stopped::Step => Stop::SignalWithThread { tid, signal: Signal::SIGTRAP },
                    Stopped::Watchpoint(watch) => {
                        let kind = match (watch.read, watch.write) {
                            (false, _) => WatchKind::Write,
                            (true, false) => WatchKind::Read,
                            (true, true) => WatchKind::ReadWrite,
                        };
                        Stop::Watch { tid, kind, addr: watch.linear }
                    }
                };
                running.report_stop(&mut self.debugged, reason).map_err(tell)
            }
            // The state at a triple fault is worth a look: the end is told when gdb continues.
            Outcome::TripleFault { processor, .. } => {
                let reason = Stop::SignalWithThread { tid: thread_of(processor), signal: Signal::SIGSEGV };
                self.over = Some(outcome);
                running.report_stop(&mut self.debugged, reason).map_err(tell)
            }
            outcome => {
                self.over = Some(outcome);
                self.tell_end(running)
            }
        }
    }

    fn tell_end<'s>(
        &mut self,
        running: GdbStubStateMachineInner<'s, state::Running, Debugged<'a>, TcpStream>,
    ) -> Result<Stub<'s, 'a>, ()> {
        let status = match &self.over {
            Some(Outcome::DebugExit(status)) => (status & 0xff) as u8,
            Some(Outcome::TripleFault { .. }) => crate::exit_status::TRIPLE_FAULT,
            _ => 0,
        };
        running.report_stop(&mut self.debugged, Stop::Exited(status)).map_err(tell)
    }
}
