//! What the machine itself takes: a sync to the disk, a round trip on loopback.

use std::io::{Seek as _, Write as _};
use std::path::Path;
use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::latencies;
use crate::reading::Latencies;

/// Overwrites 4 KiB and waits for the disk, 500 times.
pub fn fdatasync(directory: &Path) -> anyhow::Result<Latencies> {
    let mut file = std::fs::File::create(directory.join("fdatasync"))?;
    let block = [7; 4096];
    file.write_all(&block)?;
    file.sync_all()?;
    let mut durations = Vec::new();
    for _ in 0..500 {
        let started = Instant::now();
        file.rewind()?;
        file.write_all(&block)?;
        file.sync_data()?;
        durations.push(started.elapsed());
    }
    Ok(latencies(durations))
}

/// One byte there and back over TCP, 5,000 times.
pub async fn loopback_round_trip() -> anyhow::Result<Latencies> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let echo = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let mut byte = [0];
        while stream.read(&mut byte).await? == 1 {
            stream.write_all(&byte).await?;
        }
        anyhow::Ok(())
    });
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut durations, mut byte) = (Vec::new(), [0]);
    for _ in 0..5_000 {
        let started = Instant::now();
        stream.write_all(&byte).await?;
        stream.read_exact(&mut byte).await?;
        durations.push(started.elapsed());
    }
    drop(stream);
    echo.await??;
    Ok(latencies(durations))
}
