//! What is told of a process's crashes: once when they begin, once when they are over.

use tucano_api::{
    agent::{ProcessReport, ProcessState},
    state::AlertKind,
    units::Timestamp,
};

use crate::{cluster::Cluster, processes::Process, reasons::plural};

impl Process {
    /// Takes in what its agent says, `None` if it does not name the process. Whether its route or its
    /// service's progress may be another for it.
    fn update(&mut self, report: Option<ProcessReport>, now: Timestamp) -> bool {
        let port = self.node_port();
        let restarts = self.report.as_ref().map(|report| report.restarts);
        self.report = report;
        let healthy = self
            .report
            .as_ref()
            .filter(|r| r.state == ProcessState::Healthy);
        self.healthy_since = match (healthy, self.healthy_since) {
            // Healthy again, but it has ended in between.
            (Some(report), Some(_)) if restarts != Some(report.restarts) => Some(now),
            (Some(_), since) => since.or(Some(now)),
            (None, _) => None,
        };
        self.node_port() != port
    }

    /// How often it ended in a row.
    fn crashes(&self) -> u32 {
        let restarts = self.report.as_ref().map_or(0, |report| report.restarts);
        restarts.saturating_sub(self.record.trouble.forgiven_restarts)
    }

    /// When the kernel last killed it for lack of memory.
    fn oom_killed_at(&self) -> Option<Timestamp> {
        let exit = self.report.as_ref()?.last_exit?;
        exit.oom_killed.then_some(exit.at)
    }

    fn is_to_be_watched(&self) -> bool {
        self.record.trouble.is_told() || self.crashes() > 0
    }
}

impl Cluster {
    pub(crate) fn observe(&mut self, number: u64, report: Option<ProcessReport>) {
        let now = self.now;
        let Some(process) = self.processes.get_mut(&number) else {
            return;
        };
        if process.update(report, now) {
            self.changes
                .reconcile
                .insert(process.record.service.clone());
            self.changes.reroute.insert(process.record.service.clone());
        }
        self.forget_lost_count(number);
        self.tell_oom_kill(number);
        self.tell_crashes(number);
        if self
            .processes
            .get(&number)
            .is_some_and(Process::is_to_be_watched)
        {
            self.watched.insert(number);
        }
    }

    pub(crate) fn expire_recoveries(&mut self) {
        let watched = self.watched.iter().copied();
        let due: Vec<u64> = watched
            .filter(|number| self.recovered_at(*number).is_some_and(|at| at <= self.now))
            .collect();
        for number in due {
            self.watched.remove(&number);
            self.recovered(number);
        }
    }

    pub(crate) fn next_recovery(&self) -> Option<Timestamp> {
        self.watched
            .iter()
            .filter_map(|number| self.recovered_at(*number))
            .min()
    }

    fn recovered_at(&self, number: u64) -> Option<Timestamp> {
        let since = self.processes.get(&number)?.healthy_since?;
        Some(since.after(self.settings.recovered_after))
    }

    fn recovered(&mut self, number: u64) {
        let Some(process) = self.processes.get_mut(&number) else {
            return;
        };
        let before = process.record.trouble.clone();
        let restarts = process.report.as_ref().map_or(0, |report| report.restarts);
        let trouble = &mut process.record.trouble;
        trouble.forgiven_restarts = restarts;
        trouble.crash_told = false;
        trouble.oom_told = false;
        if *trouble == before {
            return;
        }
        let id = process.record.id.clone();
        self.changes.processes.insert(id.clone());
        if before.is_told() {
            let healthy_for = self.settings.recovered_after;
            let message = format!("process {id} has been healthy for {healthy_for} again");
            self.alert(AlertKind::ProcessRecovered, id, message);
        }
    }

    /// An agent that has lost its count begins anew.
    fn forget_lost_count(&mut self, number: u64) {
        let Some(process) = self.processes.get_mut(&number) else {
            return;
        };
        let Some(restarts) = process.report.as_ref().map(|report| report.restarts) else {
            return;
        };
        let forgiven = &mut process.record.trouble.forgiven_restarts;
        if restarts < *forgiven {
            *forgiven = restarts;
            self.changes.processes.insert(process.record.id.clone());
        }
    }

    fn tell_oom_kill(&mut self, number: u64) {
        let Some(process) = self.processes.get_mut(&number) else {
            return;
        };
        let killed_at = process.oom_killed_at();
        if killed_at.is_none() || killed_at == process.record.trouble.oom_killed_at {
            return;
        }
        process.record.trouble.oom_killed_at = killed_at;
        let told = std::mem::replace(&mut process.record.trouble.oom_told, true);
        let id = process.record.id.clone();
        self.changes.processes.insert(id.clone());
        if !told {
            let message = format!(
                "process {id} on {} was killed: it reached its memory limit of {}. \
                 Give service {} more `memory`, or have it use less",
                process.record.node,
                crate::reasons::bytes(process.memory),
                process.record.service,
            );
            self.alert(AlertKind::ProcessOomKilled, id, message);
        }
    }

    fn tell_crashes(&mut self, number: u64) {
        let limit = self.settings.crash_alert_after.max(1);
        let Some(process) = self.processes.get_mut(&number) else {
            return;
        };
        let crashes = process.crashes();
        if crashes < limit || process.record.trouble.crash_told {
            return;
        }
        process.record.trouble.crash_told = true;
        let id = process.record.id.clone();
        let exit = process.report.as_ref().and_then(|report| report.last_exit);
        let how = exit.map_or(String::new(), |exit| {
            format!("; it last {}", last_words(exit))
        });
        let message = format!(
            "process {id} on {} keeps crashing: it ended {} in a row{how}. \
             `tucano logs {id}` shows what it wrote",
            process.record.node,
            plural(crashes as usize, "time", "times"),
        );
        self.changes.processes.insert(id.clone());
        self.alert(AlertKind::ProcessCrashing, id, message);
    }
}

fn last_words(exit: tucano_api::agent::Exit) -> String {
    if exit.oom_killed {
        "was killed for reaching its memory limit".to_owned()
    } else {
        exit.to_string()
    }
}
