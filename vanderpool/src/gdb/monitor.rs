//! gdb's `monitor` commands.

use super::target::Debugged;
use crate::inspect::{self, number};
use processor::debugger::Scope;
use std::fmt::Write;

/// The answer to `monitor COMMAND`, with its line end.
pub(super) fn answer(debugged: &mut Debugged<'_>, command: &str) -> String {
    let text = match obey(debugged, command) {
        Ok(text) => text,
        Err(why) => format!("{why}; `monitor help` lists the commands"),
    };
    if text.ends_with('\n') { text } else { text + "\n" }
}

fn obey(debugged: &mut Debugged<'_>, command: &str) -> Result<String, String> {
    let words: Vec<&str> = command.split_whitespace().collect();
    match words.as_slice() {
        [] | ["help"] => Ok(help()),
        ["break-in"] => Ok(describe(debugged)),
        ["break-in", rest @ ..] => break_in(debugged, rest),
        words => inspect::answer(debugged.machine, 0, words)
            .unwrap_or_else(|| Err(format!("there is no command {command:?}"))),
    }
}

fn help() -> String {
    let own = "break-in any|l1|l2|eptp N|vpid N|vmcs N [at ADDRESS]\n\
               \x20   breakpoints and watchpoints (all, or those at ADDRESS) count only there\n";
    format!("{own}{}", inspect::help())
}

fn break_in(debugged: &mut Debugged<'_>, words: &[&str]) -> Result<String, String> {
    let (words, address) = match words {
        [scope @ .., "at", address] => (scope, Some(number(address)?)),
        _ => (words, None),
    };
    let scope = match words {
        ["any"] => Scope::Any,
        ["l1"] => Scope::Root,
        ["l2"] => Scope::NonRoot,
        ["eptp", value] => Scope::Eptp(number(value)?),
        ["vpid", value] => Scope::Vpid(u16::try_from(number(value)?).map_err(|_| "a VPID has 16 bits".to_owned())?),
        ["vmcs", value] => Scope::Vmcs(number(value)?),
        _ => return Err("break-in takes any, l1, l2, eptp N, vpid N or vmcs N".to_owned()),
    };
    match address {
        Some(address) => {
            debugged.scopes.retain(|(known, _)| *known != address);
            debugged.scopes.push((address, scope));
        }
        None => debugged.scope = scope,
    }
    Ok(describe(debugged))
}

fn name(scope: Scope) -> String {
    match scope {
        Scope::Any => "everywhere".to_owned(),
        Scope::Root => "in L1 (outside VMX non-root operation)".to_owned(),
        Scope::NonRoot => "in L2 (VMX non-root operation)".to_owned(),
        Scope::Eptp(eptp) => format!("in L2 with EPTP {eptp:#x}"),
        Scope::Vpid(vpid) => format!("in L2 with VPID {vpid}"),
        Scope::Vmcs(vmcs) => format!("in L2 with VMCS {vmcs:#x}"),
    }
}

fn describe(debugged: &Debugged<'_>) -> String {
    let mut text = format!("breakpoints count {}\n", name(debugged.scope));
    for &(address, scope) in &debugged.scopes {
        let _ = writeln!(text, "at {address:#x} {}", name(scope));
    }
    text
}
