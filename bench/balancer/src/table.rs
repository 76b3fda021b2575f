//! Results as a table: medians over the rounds, and ratios to HAProxy.

use crate::{
    contender::{Contender, HAPROXY},
    load::{Load, Measured},
};

pub(crate) fn print(load: &Load, contenders: &[Contender], measured: &[Vec<Measured>]) {
    println!("\n{}, {} connections", load.name, load.connections);
    println!(
        "{:<16}{:>12}{:>10}{:>10}{:>10}{:>14}{:>12}",
        "", "requests/s", "p50 ms", "p99 ms", "p99.9 ms", "CPU us each", "to HAProxy"
    );
    let cpu_us =
        |results: &[Measured]| median(results, |it| it.cpu_seconds * 1e6 / it.requests as f64);
    let mut all = contenders.iter().zip(measured);
    let haproxy = all
        .find(|(contender, _)| contender.name == HAPROXY)
        .map(|(_, results)| cpu_us(results));
    for (contender, results) in contenders.iter().zip(measured) {
        let rate = median(results, |it| it.requests as f64 / it.seconds);
        let latency = |per_mille| median(results, |it| it.latency_us(per_mille) / 1000.0);
        let cpu = cpu_us(results);
        let ratio = haproxy.filter(|_| cpu > 0.0).map(|haproxy| cpu / haproxy);
        println!(
            "{:<16}{rate:>12.0}{:>10.2}{:>10.2}{:>10.2}{cpu:>14.1}{:>12}",
            contender.name,
            latency(500),
            latency(990),
            latency(999),
            ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}"))
        );
    }
}

fn median(results: &[Measured], of: impl Fn(&Measured) -> f64) -> f64 {
    let mut values: Vec<f64> = results.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
