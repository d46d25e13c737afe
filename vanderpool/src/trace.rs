//! `vanderpool trace`: records what VT-x and the rest of the processors do, and shows what was recorded, filtered, in another form.

use crate::cli::{TraceCommand, TraceRecord, TraceShow};
use crate::{Error, boot};
use machine::trace::{Format, Tracer, read_record};
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;

/// Does what `command` says; gives the exit status.
///
/// # Errors
/// When a file or an argument is not right.
pub fn run(command: &TraceCommand) -> Result<u8, Error> {
    match command {
        TraceCommand::Record(arguments) => record(arguments),
        TraceCommand::Show(arguments) => show(arguments).map(|()| 0),
    }
}

/// The form of a trace in the file `path`.
pub(crate) fn format_of(path: &Path) -> Format {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("json") => Format::Chrome,
        Some("jsonl") => Format::Records,
        _ => Format::Text,
    }
}

fn record(arguments: &TraceRecord) -> Result<u8, Error> {
    if arguments.boot.trace.is_some() {
        return Err(Error::new("the trace has a file already: leave --trace out"));
    }
    let mut machine = arguments.boot.clone();
    machine.trace = Some(arguments.file.clone());
    machine.trace_filter.clone_from(&arguments.filter);
    boot::run(&machine)
}

fn show(arguments: &TraceShow) -> Result<(), Error> {
    let path = &arguments.file;
    let file = File::open(path).map_err(|e| Error::file("read", path, &e))?;
    let format =
        arguments.format.map_or_else(|| arguments.output.as_deref().map_or(Format::Text, format_of), Into::into);
    let out: Box<dyn Write + Send> = match &arguments.output {
        Some(output) => Box::new(File::create(output).map_err(|e| Error::file("write", output, &e))?),
        None => Box::new(io::stdout()),
    };
    let mut tracer = Tracer::new(arguments.filter.clone().unwrap_or_default(), format, Box::new(BufWriter::new(out)));
    for (number, line) in (1u64..).zip(BufReader::new(file).lines()) {
        let line = line.map_err(|e| Error::file("read", path, &e))?;
        match read_record(&line) {
            Ok(Some(record)) => tracer.record(&record),
            Ok(None) => {}
            Err(_) => {
                let why =
                    "is no record of a trace; traces in files named .json or .jsonl can be read again, text cannot";
                return Err(Error::new(format!("{}: line {number} {why}", path.display())));
            }
        }
    }
    match (tracer.finish(), &arguments.output) {
        (Ok(records), Some(output)) => {
            eprintln!("trace: {records} records in {}", output.display());
            Ok(())
        }
        (Ok(_), None) => Ok(()),
        // Whoever reads may have had enough (`| head`).
        (Err(error), None) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        (Err(error), output) => {
            let path = output.as_deref().unwrap_or(Path::new("standard output"));
            Err(Error::file("write", path, &error))
        }
    }
}
