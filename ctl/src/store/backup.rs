//! Backup and restore of the controller's state, on its own machine. A backup is one SQLite file, readable by its owner
//! only: the database, and the files of the cluster's authority. It has no images: agents keep those that they run.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OpenFlags, params};
use tucano_planner::Identity;

use super::{FILE, MARK, StoreError, identity, mark, sqlite};

/// Directory of the authority, below the data directory.
const AUTHORITY: &str = "tls";
const CREATE_FILES: &str =
    "CREATE TABLE backup_files (path TEXT PRIMARY KEY, content BLOB NOT NULL) STRICT;";

/// Writes a backup of the data directory to a new file, also while the controller runs.
///
/// # Errors
/// There is no database, the file exists, or one of them cannot be used.
pub fn backup(data_dir: &Path, to: &Path) -> Result<(), StoreError> {
    let database = data_dir.join(FILE);
    if !database.exists() {
        return Err(StoreError::damaged(
            &database,
            "there is no database to back up",
        ));
    }
    if to.exists() {
        return Err(StoreError::damaged(to, "the file exists: name another one"));
    }
    let temporary = to.with_extension("incomplete");
    remove_if_there(&temporary)?;
    let source = open(&database, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    copy(&source, &database, &temporary)?;
    let target = open(&temporary, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    store_files(&target, &data_dir.join(AUTHORITY))
        .map_err(|error| sqlite_error(&temporary, error))?;
    drop(target);
    finish(&temporary, to)
}

/// Restores a backup into a data directory without a database, and begins a new epoch. What agents were told after the
/// backup was made puts them on hold.
///
/// # Errors
/// There is a database, the file is not a backup, or a file cannot be written.
pub fn restore(data_dir: &Path, from: &Path) -> Result<Identity, StoreError> {
    let database = data_dir.join(FILE);
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let path = PathBuf::from(format!("{}{suffix}", database.display()));
        if path.exists() {
            let why = "it exists: a backup is restored only where there is no database. Move it away first";
            return Err(StoreError::damaged(&path, why));
        }
    }
    let source = open(from, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    sqlite::check(&source, from)?;
    let temporary = data_dir.join(format!("{FILE}.restoring"));
    remove_if_there(&temporary)?;
    copy(&source, from, &temporary)?;
    let target = open(&temporary, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let failed = |error| sqlite_error(&temporary, error);
    restore_files(&target, &data_dir.join(AUTHORITY))?;
    target
        .execute_batch("DROP TABLE IF EXISTS backup_files")
        .map_err(failed)?;
    let identity = identity::begin_epoch(&target).map_err(failed)?;
    let changes = mark::changes(&target).map_err(failed)?;
    drop(target);
    finish(&temporary, &database)?;
    let mark = mark::Mark {
        cluster: identity.cluster.clone(),
        changes,
        file: None,
    };
    let path = data_dir.join(MARK);
    mark::MarkFile(path.clone())
        .write(&mark)
        .map_err(|source| io_error(&path, source))?;
    Ok(identity)
}

/// A consistent copy of a database, also of one that is being written to.
fn copy(source: &Connection, name: &Path, to: &Path) -> Result<(), StoreError> {
    let text = to.display().to_string();
    source
        .execute("VACUUM INTO ?1", params![text])
        .map_err(|error| sqlite_error(name, error))?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o600))
        .map_err(|source| io_error(to, source))
}

fn store_files(target: &Connection, directory: &Path) -> rusqlite::Result<()> {
    target.execute_batch(CREATE_FILES)?;
    let Ok(entries) = fs::read_dir(directory) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        let (name, content) = (entry.file_name(), fs::read(entry.path()));
        if let (Some(name), Ok(content)) = (name.to_str(), content) {
            target.execute(
                "INSERT INTO backup_files (path, content) VALUES (?1, ?2)",
                params![name, content],
            )?;
        }
    }
    Ok(())
}

fn restore_files(source: &Connection, directory: &Path) -> Result<(), StoreError> {
    let Ok(mut statement) = source.prepare("SELECT path, content FROM backup_files") else {
        // A copy of the database alone.
        return Ok(());
    };
    let failed = |error| sqlite_error(directory, error);
    let rows = statement.query_map([], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?))
    });
    fs::create_dir_all(directory).map_err(|source| io_error(directory, source))?;
    for row in rows.map_err(failed)? {
        let (name, content) = row.map_err(failed)?;
        let plain = Path::new(&name)
            .file_name()
            .is_some_and(|file| file == name.as_str());
        let path = directory.join(&name);
        if !plain || path.exists() {
            continue;
        }
        fs::write(&path, content).map_err(|source| io_error(&path, source))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
            .map_err(|source| io_error(&path, source))?;
    }
    Ok(())
}

fn open(path: &Path, flags: OpenFlags) -> Result<Connection, StoreError> {
    let connection = Connection::open_with_flags(path, flags);
    connection.map_err(|error| sqlite_error(path, error))
}

/// Gives a complete file its name, durably.
fn finish(temporary: &Path, name: &Path) -> Result<(), StoreError> {
    let rename = || -> io::Result<()> {
        fs::File::open(temporary)?.sync_all()?;
        fs::rename(temporary, name)?;
        let parent = name
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        fs::File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
    };
    rename().map_err(|source| io_error(name, source))
}

fn remove_if_there(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(path, error)),
        _ => Ok(()),
    }
}

fn sqlite_error(path: &Path, source: rusqlite::Error) -> StoreError {
    StoreError::Open {
        path: path.display().to_string(),
        source,
    }
}

fn io_error(path: &Path, source: io::Error) -> StoreError {
    StoreError::Io {
        path: path.display().to_string(),
        source,
    }
}

#[cfg(test)]
mod tests;
