//! An application of several services from a Compose file: web, API, worker, PostgreSQL and Redis, and a job that comes before.

use std::{collections::BTreeSet, fs, os::unix::fs::symlink, path::PathBuf, process::Output};

use tucano_testkit::needs;
use tucano_tests::{
    CLUSTER, Cluster, Options,
    cluster::field,
    databases::{self, DATABASES},
    user::{Answer, Sample},
};

use crate::exec::Shell;

const FILES: [(&str, &str); 5] = [
    ("compose.yaml", include_str!("application/compose.yaml")),
    ("web.py", include_str!("application/web.py")),
    ("api.py", include_str!("application/api.py")),
    ("worker.py", include_str!("application/worker.py")),
    ("migrate.py", include_str!("application/migrate.py")),
];
/// What has no volume, and how many processes of it there are.
const STATELESS: [(&str, usize); 4] = [("web", 2), ("api", 2), ("worker", 1), ("cache", 1)];

struct Shop {
    shell: Shell,
    directory: PathBuf,
}

impl Shop {
    fn start() -> Self {
        let shell = Shell(Cluster::start(&Options::default()));
        let directory = shell.0.path("shop");
        fs::create_dir(&directory).unwrap();
        for (name, text) in FILES {
            fs::write(directory.join(name), text).unwrap();
        }
        symlink(databases::python(), directory.join("python.tar")).unwrap();
        symlink(databases::image(), directory.join("databases.tar")).unwrap();
        Self { shell, directory }
    }

    fn deploy(&self, version: &str) -> Output {
        let file = self.directory.join("compose.yaml");
        let words = ["deploy", file.to_str().unwrap(), "--timeout", "60s"];
        let mut command = self.shell.tucano(&words);
        let output = command.env("VERSION", version).output().unwrap();
        assert!(
            output.status.success(),
            "{output:?}\n{}",
            self.shell.0.logs()
        );
        output
    }

    fn get(&self, path: &str) -> Result<Answer, String> {
        self.shell.0.request("web", path)
    }

    /// The number of rows, once the whole way to the database is there.
    fn rows(&self) -> u64 {
        self.shell.0.wait("an answer of the application", || {
            let answer = self.get("/").ok().filter(|it| it.status == 200)?;
            field(&answer.body, "rows").parse().ok()
        })
    }

    /// Adds an item and waits until the worker has inserted it. An answer that is lost may have added one as well.
    fn add(&self, rows: &mut u64) {
        self.shell.0.wait("an item to be taken", || {
            let answer = self.get("/add").ok()?;
            (answer.status == 200).then_some(())
        });
        *rows += 1;
        self.shell
            .0
            .wait("the item's row", || (self.rows() >= *rows).then_some(()));
        *rows = self.rows();
    }

    fn database_at(&self) -> usize {
        let processes = self.shell.0.wait_for_healthy("db", 1);
        index(&processes[0].node.to_string())
    }

    fn wait_for_stateless(&self) {
        for (service, count) in STATELESS {
            self.shell.0.wait_for_healthy(service, count);
        }
    }

    fn runs(&self) -> usize {
        let runs: Option<serde_json::Value> = self.shell.0.get("/v1/jobs/migrate/runs");
        runs.unwrap().as_array().unwrap().len()
    }
}

fn index(worker: &str) -> usize {
    worker.trim_start_matches('w').parse::<usize>().unwrap() - 1
}

fn versions(sample: &Sample) -> (String, String) {
    let body = &sample.result.as_ref().unwrap().body;
    (field(body, "web"), field(body, "api"))
}

#[test]
fn an_application_comes_up_with_one_command_survives_each_worker_and_is_updated_under_load() {
    if !needs(&CLUSTER) || !needs(&DATABASES) {
        return;
    }
    let mut shop = Shop::start();
    let said = shop.deploy("1");
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("the tables are there"), "{said}");
    let mut rows = shop.rows();
    assert_eq!(rows, 0);
    shop.add(&mut rows);

    for lost in 0..3 {
        let had_database = shop.database_at() == lost;
        shop.shell.0.power_off(lost);
        shop.wait_for_stateless();
        if had_database {
            shop.shell.0.wait("its slot to wait for its worker", || {
                let said = shop.shell.tucano(&["ps", "db"]).output().unwrap();
                let said = String::from_utf8_lossy(&said.stdout).into_owned();
                said.contains(&format!("volume db/data/1 is on w{}", lost + 1))
                    .then_some(())
            });
        } else {
            shop.add(&mut rows);
        }
        shop.shell.0.boot(lost);
        shop.shell.0.wait_for_alive(3);
        assert!(shop.rows() >= rows, "every row is kept");
        shop.add(&mut rows);
    }

    shop.wait_for_stateless();
    let balancer = shop.shell.0.balancer();
    let load = shop.shell.0.user().load(balancer, "web.localhost", 4);
    shop.shell
        .0
        .wait("load", || (load.successes() > 20).then_some(()));
    shop.deploy("2");
    let before = load.successes();
    shop.shell.0.wait("load after it", || {
        (load.successes() > before + 20).then_some(())
    });
    let samples = load.stop();
    let failed: Vec<_> = samples.iter().filter(|it| !it.is_ok()).collect();
    assert!(failed.is_empty(), "{failed:#?}\n{}", shop.shell.0.logs());
    let seen: BTreeSet<_> = samples.iter().map(versions).collect();
    let both = |version: &str| (version.to_owned(), version.to_owned());
    assert!(
        seen.contains(&both("1")) && seen.contains(&both("2")),
        "{seen:?}"
    );
    assert_eq!(versions(samples.last().unwrap()), both("2"));
    assert!(shop.rows() >= rows, "every row is kept");
    assert_eq!(shop.runs(), 2, "once for each revision");
    // Nothing is replaced, and nothing is run again, where nothing has changed.
    let again = shop.deploy("2");
    let again = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(!again.contains("is configured"), "{again}");
    assert_eq!(shop.runs(), 2);
}
