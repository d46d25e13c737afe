//! `--explain`, `--trace` and `--stats`: who watches the machine, and where what they find goes.

use crate::trace::format_of;
use crate::{Error, cli};
use machine::exit_statistics::ExitStatistics;
use machine::explain::{Explainer, Explanation, Sink};
use machine::trace::Tracer;
use machine::{Machine, Watchers};
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;

/// How explanations are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ExplainFormat {
    /// Text.
    Text,
    /// JSON, one object a line.
    Json,
}

/// Has the watchers that `arguments` ask for watch `machine`.
///
/// # Errors
/// When a file cannot be written.
pub fn watch(machine: &mut Machine, arguments: &cli::Boot) -> Result<(), Error> {
    let mut watchers = Watchers::default();
    if let Some(kinds) = arguments.explain {
        watchers.explainer = Some(Explainer::new(kinds, sink(arguments)?));
    }
    if let Some(path) = &arguments.trace {
        let format = format_of(path);
        let filter = arguments.trace_filter.clone().unwrap_or_default();
        watchers.tracer = Some(Tracer::new(filter, format, Box::new(BufWriter::new(create(path)?))));
    }
    if arguments.stats {
        watchers.exits = Some(ExitStatistics::default());
    }
    machine.watch(watchers);
    Ok(())
}

/// Ends the trace and tells what was only counted.
///
/// # Errors
/// When the trace could not be written.
pub fn finish(machine: &Machine, arguments: &cli::Boot) -> Result<(), Error> {
    let mut watchers = machine.watchers();
    if let Some(explainer) = &watchers.explainer {
        for (title, count) in explainer.repeated() {
            eprintln!("explained once, happened {count} times: {title}");
        }
    }
    if let (Some(tracer), Some(path)) = (&mut watchers.tracer, &arguments.trace) {
        let records = tracer.finish().map_err(|e| Error::file("write", path, &e))?;
        eprintln!("trace: {records} records in {}", path.display());
    }
    if let Some(exits) = &watchers.exits {
        eprint!("{exits}");
    }
    Ok(())
}

fn create(path: &Path) -> Result<File, Error> {
    File::create(path).map_err(|e| Error::file("write", path, &e))
}

fn sink(arguments: &cli::Boot) -> Result<Sink, Error> {
    let format = arguments.explain_format;
    let text = move |explanation: &Explanation| match format {
        ExplainFormat::Text => explanation.to_string(),
        // Plain data: encoding it cannot fail.
        ExplainFormat::Json => serde_json::to_string(explanation).unwrap_or_default() + "\n",
    };
    Ok(match &arguments.explain_output {
        Some(path) => {
            let mut file = create(path)?;
            Box::new(move |explanation| {
                // A full disk must not stop the guest.
                let _ = file.write_all(text(explanation).as_bytes());
            })
        }
        None => {
            // A terminal in raw mode wants to be told to go to the first column.
            let raw = arguments.uses_terminal() && io::stdin().is_terminal() && io::stderr().is_terminal();
            Box::new(move |explanation| {
                let text = text(explanation);
                let text = if raw { text.replace('\n', "\r\n") } else { text };
                eprint!("{text}");
            })
        }
    })
}
