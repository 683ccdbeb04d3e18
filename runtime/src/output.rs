//! What a command prints. Whoever reads may stop reading (`kalends status | head -1`): that is nobody's fault, and must
//! neither panic nor change how the command ends.

use std::io::{self, Write};

/// Prints `text` as it is.
pub fn text(text: &str) {
    write_to(&mut io::stdout().lock(), text);
}

/// Prints `text` and a line break.
pub fn line(text: &str) {
    write_to(&mut io::stdout().lock(), &format!("{text}\n"));
}

/// Prints `text` for the one who should know that something went wrong.
pub fn error(text: &str) {
    write_to(&mut io::stderr().lock(), text);
}

fn write_to(output: &mut impl Write, text: &str) {
    let written = output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush());
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            // The last one who may hear it; if that fails too, there is nobody.
            let _ = writeln!(
                io::stderr(),
                "kalends: the output cannot be written: {error}"
            );
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_left_is_nobodys_fault() {
        let (reader, mut writer) = io::pipe().unwrap();
        drop(reader);
        write_to(&mut writer, "a line");
    }
}
