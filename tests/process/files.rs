//! The files of an SQLite database: what creates them, their names, and who may read them.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use tokio::process::Command;

use super::{Process, command, finish, run};
use crate::support::database::TestDatabase;

/// A command on an SQLite file whose key is the file beside it.
fn on(path: &Path) -> Command {
    let mut command = command(&format!("sqlite://{}", path.display()), &std::env::temp_dir());
    command.env_remove("KALLIMA_MASTER_KEY");
    command
}

async fn serve(path: &Path) -> Process {
    Process::launch(on(path), &[]).await
}

/// The names of the files in a folder.
fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

const NOBODY: &str = "00000000-0000-7000-8000-000000000000";

/// Every command except those that may create a database, and `listen`, which has none.
fn commands(url: &str, target: &Path) -> Vec<Vec<String>> {
    let target = target.to_str().unwrap();
    let commands: [&[&str]; 10] = [
        &["token", "list"],
        &["token", "create", "--platform"],
        &["token", "revoke", NOBODY],
        &["organization", "list"],
        &["organization", "create", "--name", "Lab"],
        &["organization", "limits", NOBODY],
        &["keys", "list"],
        &["keys", "rotate"],
        &[
            "migrate-data",
            "--from",
            url,
            "--to",
            "postgres://postgres@127.0.0.1:1/nothing",
        ],
        &["backup", "--to", target, "--with-key"],
    ];
    let owned = |command: &&[&str]| command.iter().map(ToString::to_string).collect();
    commands.iter().map(owned).collect()
}

async fn refused(path: &Path, arguments: &[String]) -> String {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (done, printed, complaint) = finish(on(path), &arguments).await;
    assert!(!done && printed.is_empty(), "{arguments:?}: {printed}");
    assert_eq!(complaint.lines().count(), 1, "{arguments:?}: {complaint}");
    complaint
}

#[tokio::test]
async fn a_mistyped_path_makes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let absent = folder.path().join("typo.db");
    let url = format!("sqlite://{}", absent.display());
    for arguments in commands(&url, &folder.path().join("copy.db")) {
        let complaint = refused(&absent, &arguments).await;
        assert!(
            complaint.contains("there is no database") && complaint.contains("typo.db"),
            "{arguments:?}: {complaint}"
        );
    }
    let complaint = refused(&absent, &["keys", "add"].map(String::from)).await;
    assert!(complaint.contains("typo.db.key"), "{complaint}");
    assert_eq!(names(folder.path()), BTreeSet::new());
}

#[tokio::test]
async fn a_database_without_our_tables_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (empty, foreign) = (folder.path().join("empty.db"), folder.path().join("foreign.db"));
    fs::write(&empty, "").unwrap();
    let connection = rusqlite::Connection::open(&foreign).unwrap();
    connection.execute_batch("CREATE TABLE other (id INTEGER)").unwrap();
    drop(connection);
    for path in [empty, foreign] {
        let before = fs::read(&path).unwrap();
        let url = format!("sqlite://{}", path.display());
        for arguments in commands(&url, &folder.path().join("copy.db")) {
            let complaint = refused(&path, &arguments).await;
            assert!(
                complaint.contains("run `kallima-webhooks migrate`"),
                "{arguments:?}: {complaint}"
            );
        }
        assert!(fs::read(&path).unwrap() == before, "{} was changed", path.display());
    }
    assert_eq!(
        names(folder.path()),
        BTreeSet::from(["empty.db", "foreign.db"].map(String::from))
    );
}

#[tokio::test]
async fn commands_migrate_no_schema() {
    let database = TestDatabase::empty().await;
    if !database.is_postgres() {
        return;
    }
    for arguments in [
        &["token", "list"][..],
        &["organization", "create", "--name", "Lab"],
        &["keys", "list"],
    ] {
        let (done, _, complaint) = run(&database, arguments).await;
        assert!(
            !done && complaint.contains("the PostgreSQL database lacks migrations of this version: run"),
            "{complaint}"
        );
    }
    let connection = database.connect().await;
    let tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'";
    let tables = sea_orm::Statement::from_string(sea_orm::DbBackend::Postgres, tables);
    let tables = sea_orm::ConnectionTrait::query_all_raw(&connection, tables)
        .await
        .unwrap();
    assert_eq!(tables.len(), 0);
}

#[tokio::test]
async fn a_key_file_that_is_gone_is_not_made_again_by_a_command() {
    let database = TestDatabase::sqlite().await;
    let path = database.sqlite_folder().unwrap().join("test.db");
    let key = path.with_extension("db.key");
    fs::remove_file(&key).unwrap();
    for arguments in [["token", "list"], ["keys", "list"], ["keys", "add"]] {
        let complaint = refused(&path, &arguments.map(String::from)).await;
        assert!(complaint.contains("test.db.key"), "{complaint}");
    }
    assert!(!key.exists());
}

#[tokio::test]
async fn every_file_is_for_the_owner_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("k.db");
    let server = serve(&path).await;
    let (done, _, complaint) = finish(on(&path), &["keys", "add"]).await;
    assert!(done, "{complaint}");
    let expected = ["k.db", "k.db-shm", "k.db-wal", "k.db.key", "k.db.key.lock", "k.db.lock"];
    assert_eq!(names(folder.path()), BTreeSet::from(expected.map(String::from)));
    for name in expected {
        let mode = fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    drop(server);
}

#[tokio::test]
async fn a_link_leads_to_the_lock_and_the_key_of_its_file() {
    let (folder, links) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (path, link) = (folder.path().join("k.db"), links.path().join("link.db"));
    // The link's target does not exist yet: the first start creates it.
    symlink(&path, &link).unwrap();
    let server = serve(&link).await;
    for name in [&path, &link] {
        let arguments = ["--listen", "127.0.0.1:0", "--metrics-listen", "off"];
        let (done, _, complaint) = finish(on(name), &arguments).await;
        assert!(
            !done && complaint.contains("in use by another kallima-webhooks process"),
            "{}: {complaint}",
            name.display()
        );
    }
    let (done, listed, complaint) = finish(on(&link), &["keys", "list"]).await;
    assert!(
        done && listed.lines().nth(1).unwrap().starts_with("1 "),
        "{listed}{complaint}"
    );
    assert!(server.terminate().await.success());
    assert_eq!(names(links.path()), BTreeSet::from(["link.db".to_owned()]));
    assert!(names(folder.path()).contains("k.db.key"));
    drop(serve(&path).await);
}

#[tokio::test]
async fn a_second_hard_link_is_refused() {
    let database = TestDatabase::sqlite().await;
    let folder = database.sqlite_folder().unwrap();
    let (path, other) = (folder.join("test.db"), folder.join("other.db"));
    fs::hard_link(&path, &other).unwrap();
    for path in [&path, &other] {
        for arguments in [&["--listen", "127.0.0.1:0"][..], &["token", "list"]] {
            let (done, _, complaint) = finish(on(path), arguments).await;
            assert!(!done && complaint.contains("has 2 hard links"), "{complaint}");
        }
    }
    fs::remove_file(&other).unwrap();
    drop(serve(&path).await);
}

#[tokio::test]
async fn a_draft_of_a_key_that_was_left_behind_is_in_nobodys_way() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("k.db");
    // As in a container, where every start has the same process id as the one that was killed.
    let plain = on(&path);
    let plain = plain.as_std();
    let mut command = Command::new("sh");
    let script = "touch \"$1.key.$$\"; shift; exec \"$0\" \"$@\"";
    command
        .args(["-c", script])
        .args([Path::new(plain.get_program()), &path])
        .args(["--listen", "127.0.0.1:0", "--metrics-listen", "off"])
        .kill_on_drop(true);
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let server = Process::spawn(command).await;
    let draft: PathBuf = folder.path().join(format!("k.db.key.{}", server.id()));
    assert!(draft.exists(), "the test makes the draft that it means");
    assert!(server.terminate().await.success());
    assert!(
        fs::read_to_string(folder.path().join("k.db.key"))
            .unwrap()
            .starts_with("1:")
    );
}
