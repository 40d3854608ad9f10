//! What a disk can do to a server: lose power, and be full. `shim.c` sits between the server and its files.

mod full;
mod journal;
mod postgres;
mod power_cut;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command as Program,
    sync::OnceLock,
};

use rustix::fs::{FlockOperation, fcntl_lock};
use tokio::process::Command;

use self::journal::{Contents, Image};

/// A folder of a database's files, on a disk of a test's own.
struct Disk {
    folder: PathBuf,
    /// Where the journal is, and the file that says that the disk is full.
    beside: tempfile::TempDir,
    /// The folder when this began.
    before: Image,
    ignores_sync: bool,
}

impl Disk {
    /// What is in the folder now is durable.
    fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            beside: open_folder(),
            before: Image::of(folder),
            ignores_sync: false,
        }
    }

    /// A disk whose fsync does nothing, as SQLite has it with `synchronous=OFF`.
    fn that_ignores_sync(folder: &Path) -> Self {
        Self {
            ignores_sync: true,
            ..Self::new(folder)
        }
    }

    /// Puts the disk under a process that will be started.
    fn under(&self, command: &mut Command) {
        command.envs(self.variables());
    }

    /// The variables by which a process has it.
    fn variables(&self) -> Vec<(&'static str, PathBuf)> {
        let mut variables = vec![
            ("LD_PRELOAD", shim().to_owned()),
            ("DISK_FOLDER", self.folder.clone()),
            ("DISK_JOURNAL", self.journal()),
            ("DISK_FULL", self.full()),
        ];
        if self.ignores_sync {
            variables.push(("DISK_IGNORES_SYNC", PathBuf::from("1")));
        }
        variables
    }

    fn journal(&self) -> PathBuf {
        self.beside.path().join("journal")
    }

    fn full(&self) -> PathBuf {
        self.beside.path().join("full")
    }

    /// Fills the disk, or makes room.
    fn set_full(&self, is_full: bool) {
        if is_full {
            fs::write(self.full(), "").unwrap();
        } else {
            fs::remove_file(self.full()).unwrap();
        }
    }

    /// Waits for the call that is in progress, and lets none begin until this is dropped: a process killed in between has
    /// changed nothing unseen.
    fn hold(&self) -> fs::File {
        let journal = fs::OpenOptions::new().write(true).open(self.journal()).unwrap();
        fcntl_lock(&journal, FlockOperation::LockExclusive).unwrap();
        journal
    }

    /// How far the journal goes by now.
    fn written(&self) -> usize {
        usize::try_from(fs::metadata(self.journal()).unwrap().len()).unwrap()
    }

    /// The journal, and the folder as it was when that began.
    fn read(&self) -> (Vec<u8>, Image) {
        (fs::read(self.journal()).unwrap(), self.before.clone())
    }

    /// Holds what the journal says against what is there: nothing was changed unseen but these files.
    fn has_seen_all(&self, image: &Image, unseen: impl Fn(&str) -> bool) {
        let seen =
            |contents: Contents| -> Contents { contents.into_iter().filter(|(name, _)| !unseen(name)).collect() };
        let (expected, found) = (seen(image.now()), seen(Image::of(&self.folder).now()));
        let only = |some: &Contents, others: &Contents| -> Vec<String> {
            some.keys()
                .filter(|name| !others.contains_key(*name))
                .cloned()
                .collect()
        };
        let (unexpected, gone) = (only(&found, &expected), only(&expected, &found));
        assert!(
            unexpected.is_empty() && gone.is_empty(),
            "unseen: {unexpected:?} are there, {gone:?} are not"
        );
        for (name, content) in expected {
            assert!(found[&name] == content, "{name} was changed unseen");
        }
    }
}

/// SQLite's index of its log is shared memory, which no power cut outlasts.
fn is_shared_memory(name: &str) -> bool {
    name.ends_with("-shm")
}

/// Makes these the contents of a folder, and its only ones.
fn restore(folder: &Path, contents: &Contents) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            fs::remove_dir_all(entry.path()).unwrap();
        } else {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    for (name, content) in contents {
        let path = folder.join(name);
        match content {
            Some(content) => fs::write(path, content).unwrap(),
            None => fs::create_dir(path).unwrap(),
        }
    }
}

/// A folder that whoever a server runs as may use.
fn open_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    folder
}

/// The library that is the disk, compiled once.
fn shim() -> &'static Path {
    static SHIM: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, library) = SHIM.get_or_init(|| {
        let folder = open_folder();
        let library = folder.path().join("disk.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/disk/shim.c");
        let mut compiler = Program::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o"]);
        let status = compiler.arg(&library).arg(source).arg("-ldl").status();
        assert!(status.expect("cc, which SQLite needs, too").success());
        (folder, library)
    });
    library
}
