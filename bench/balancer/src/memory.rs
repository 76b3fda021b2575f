//! Memory of connections that have had one answer and wait for their next request.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use anyhow::{Result, ensure};

use crate::{contender::Contender, load::HOST};

pub(crate) fn print(contenders: &[Contender], count: usize) -> Result<()> {
    println!("\nResident memory for each of {count} idle connections");
    for contender in contenders {
        let Some(process) = &contender.process else {
            continue;
        };
        let warm = open(contender, 64)?;
        let before = process.resident_kib()?;
        let connections = open(contender, count)?;
        let after = process.resident_kib()?;
        let each = (after - before) / count as f64;
        println!("{:<16}{each:>8.2} KiB", contender.name);
        drop((warm, connections));
    }
    Ok(())
}

fn open(contender: &Contender, count: usize) -> Result<Vec<TcpStream>> {
    let request = format!("GET /100 HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let connections = (0..count).map(|_| {
        let mut stream = TcpStream::connect(contender.address)?;
        stream.write_all(request.as_bytes())?;
        let (mut answer, mut buffer) = (0, [0; 1024]);
        while answer < 100 {
            let len = stream.read(&mut buffer)?;
            ensure!(len > 0, "{} closed a connection", contender.name);
            answer += len;
        }
        Ok(stream)
    });
    connections.collect()
}
