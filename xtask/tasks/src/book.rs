//! `cargo xtask book`: the documentation. The reference is generated from the code, every link between the project's documents is
//! checked, and mdBook builds `target/book`.

mod links;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::run::{Tool, cargo, step, workspace};

/// Builds the book. Neither its server nor its search is needed.
const MDBOOK: Tool = Tool {
    name: "mdbook",
    version: "0.5.4",
    // It runs for a second: optimising it takes minutes.
    arguments: &["--debug", "--no-default-features"],
};

pub(crate) fn run() -> anyhow::Result<()> {
    let reference = workspace().join("docs/reference");
    let mut generate = cargo();
    generate.args(["run", "--quiet", "--locked", "--package", "tucano_manuals"]);
    generate.args(["--", "--reference"]).arg(&reference);
    step("generating docs/reference from the code", &mut generate)?;
    eprintln!("xtask: checking the links of every document");
    check_links(&workspace())?;
    let mdbook = MDBOOK.find_or_install()?;
    let mut build = std::process::Command::new(mdbook);
    build.arg("build").arg(workspace().join("docs"));
    step("building the book into target/book", &mut build)
}

/// Fails with every link that leads nowhere.
fn check_links(root: &Path) -> anyhow::Result<()> {
    let mut broken = Vec::new();
    for page in documents(root)? {
        let text = std::fs::read_to_string(&page)
            .with_context(|| format!("cannot read {}", page.display()))?;
        let name = page.strip_prefix(root).unwrap_or(&page).display();
        for link in links::of(&text) {
            if let Some(problem) = links::problem(&page, &link) {
                broken.push(format!("{name}: {link}: {problem}"));
            }
        }
    }
    if broken.is_empty() {
        return Ok(());
    }
    bail!("links lead nowhere:\n{}", broken.join("\n"))
}

/// Every Markdown file, without what is built.
fn documents(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(directory) = todo.pop() {
        let entries = std::fs::read_dir(&directory)
            .with_context(|| format!("cannot read {}", directory.display()))?;
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path.file_name().unwrap_or_default();
            if path.is_dir() && name != "target" && !name.as_encoded_bytes().starts_with(b".") {
                todo.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_link_leads_somewhere() {
        check_links(&workspace()).unwrap();
    }

    #[test]
    fn every_page_is_in_the_summary() {
        let docs = workspace().join("docs");
        let summary = std::fs::read_to_string(docs.join("SUMMARY.md")).unwrap();
        for page in documents(&docs).unwrap() {
            let name = page.strip_prefix(&docs).unwrap().display().to_string();
            let is_listed = summary.contains(&format!("({name})"));
            let is_elsewhere = name.starts_with("decisions/") || name == "guide.md";
            assert!(is_listed || is_elsewhere || name == "SUMMARY.md", "{name}");
        }
    }
}
