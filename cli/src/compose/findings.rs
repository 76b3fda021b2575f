use std::path::Path;

/// What a Compose file asks for and does not get.
#[derive(Debug, Default)]
pub(super) struct Findings {
    refused: Vec<(usize, String)>,
    notes: Vec<(usize, String)>,
}

impl Findings {
    /// Something that cannot be done.
    pub(super) fn refuse(&mut self, line: usize, key: &str, message: impl AsRef<str>) {
        let text = format!("{key}: {}", message.as_ref());
        if !self.refused.contains(&(line, text.clone())) {
            self.refused.push((line, text));
        }
    }

    /// Something that is done differently.
    pub(super) fn note(&mut self, line: usize, key: &str, message: impl AsRef<str>) {
        let text = format!("{key}: {}", message.as_ref());
        if !self.notes.contains(&(line, text.clone())) {
            self.notes.push((line, text));
        }
    }

    /// The notes as lines, in the order of the file.
    ///
    /// # Errors
    /// What is refused, one a line, in the order of the file.
    pub(super) fn finish(mut self, file: &Path) -> Result<Vec<String>, String> {
        let shown = |all: &mut Vec<(usize, String)>| -> Vec<String> {
            all.sort_by_key(|(line, _)| *line);
            let lines = all.iter();
            lines
                .map(|(line, text)| format!("{}:{line}: {text}", file.display()))
                .collect()
        };
        match self.refused.is_empty() {
            true => Ok(shown(&mut self.notes)),
            false => Err(shown(&mut self.refused).join("\n")),
        }
    }
}
