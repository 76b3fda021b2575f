//! Links of a Markdown document, and whether each leads somewhere.

use std::{fs, path::Path};

/// The targets of a document's links, in its order; those in code are none.
pub(super) fn of(text: &str) -> Vec<String> {
    let mut links = Vec::new();
    for line in prose(text) {
        let mut rest = line.as_str();
        while let Some((_, after)) = rest.split_once("](") {
            let Some((target, next)) = after.split_once(')') else {
                break;
            };
            links.push(target.to_owned());
            rest = next;
        }
    }
    links
}

/// Why a link of `page` leads nowhere. Other sites are not asked.
pub(super) fn problem(page: &Path, link: &str) -> Option<String> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = match link.split_once('#') {
        Some((path, anchor)) => (path, Some(anchor)),
        None => (link, None),
    };
    let target = if path.is_empty() {
        page.to_owned()
    } else {
        page.parent().unwrap_or(Path::new("")).join(path)
    };
    if !target.exists() {
        return Some("there is no such file".to_owned());
    }
    let anchor = anchor?;
    let text = fs::read_to_string(&target).unwrap_or_default();
    let is_there = headings(&text).iter().any(|heading| heading == anchor);
    (!is_there).then(|| "there is no such heading".to_owned())
}

/// The addresses of a document's headings, as GitHub and mdBook make them.
fn headings(text: &str) -> Vec<String> {
    let lines = without_blocks(text);
    let headings = lines.iter().filter(|line| line.starts_with('#'));
    headings
        .map(|line| address(line.trim_start_matches('#')))
        .collect()
}

fn address(heading: &str) -> String {
    let kept = |letter: &char| letter.is_alphanumeric() || " -_".contains(*letter);
    let text: String = heading.trim().to_lowercase().chars().filter(kept).collect();
    text.replace(' ', "-")
}

/// Lines outside of code, without code within them.
fn prose(text: &str) -> Vec<String> {
    let outside = |line: &str| line.split('`').step_by(2).collect::<Vec<_>>().join("`");
    without_blocks(text).into_iter().map(outside).collect()
}

fn without_blocks(text: &str) -> Vec<&str> {
    let mut is_code = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        } else if !is_code {
            lines.push(line);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_outside_of_code() {
        let text = "[a](b.md) and [`c`](d.md#e)\n```\n[x](y)\n```\n`[x](y)` [f](#g)";
        assert_eq!(of(text), ["b.md", "d.md#e", "#g"]);
    }

    #[test]
    fn a_heading_has_an_address() {
        assert_eq!(
            address(" The controller: ctl.toml"),
            "the-controller-ctltoml"
        );
        assert_eq!(address(" `health.http`"), "healthhttp");
        assert_eq!(headings("# A b\n```\n# c\n```\n"), ["a-b"]);
    }

    #[test]
    fn a_broken_link_is_reported() {
        let directory = tempfile::tempdir().unwrap();
        let page = directory.path().join("page.md");
        fs::write(&page, "# Here\n").unwrap();
        assert_eq!(problem(&page, "#here"), None);
        assert_eq!(problem(&page, "page.md#here"), None);
        assert_eq!(problem(&page, "https://example.org/x"), None);
        assert!(problem(&page, "#there").is_some());
        assert!(problem(&page, "other.md").is_some());
    }
}
