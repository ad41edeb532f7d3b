use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::*;

const LIMITS: PumpLimits = PumpLimits { stall: Duration::from_secs(60), linger: Duration::from_secs(5) };

/// PUBLISH of `length` bytes in all, up to 129.
fn packet(length: u8) -> Vec<u8> {
    let mut packet = vec![0x30, length - 2];
    packet.resize(usize::from(length), length);
    packet
}

/// A pump whose broker takes `room` bytes without reading; gives the pump, the
/// device's end and the broker's end.
fn pump(first: &[u8], room: usize) -> (Pump<DuplexStream, DuplexStream>, DuplexStream, DuplexStream) {
    let (device, device_end) = duplex(64 * 1024);
    let (broker, broker_end) = duplex(room);
    (Pump::new(device, broker, first.to_vec(), true, LIMITS), device_end, broker_end)
}

async fn carry(pump: &mut Pump<DuplexStream, DuplexStream>) {
    std::future::poll_fn(|cx| {
        assert!(pump.poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
}

async fn rest(mut end: DuplexStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    end.read_to_end(&mut bytes).await.unwrap();
    bytes
}

#[tokio::test]
async fn a_cut_during_a_blocked_write_ends_at_the_end_of_the_packet_under_way() {
    for (room, whole) in [(15, 1), (20, 1), (21, 2), (49, 2), (50, 2)] {
        let (mut pump, mut device, broker) = pump(b"", room);
        device.write_all(&[packet(20), packet(30), packet(40)].concat()).await.unwrap();
        carry(&mut pump).await;
        let (_, mut end) = pump.cut(true);
        assert!(end.tells());
        let read = tokio::spawn(rest(broker));
        end.finish().await.unwrap();
        drop(end);
        let packets = [packet(20), packet(30)][..whole].concat();
        assert_eq!(read.await.unwrap(), [packets.as_slice(), &DISCONNECT].concat(), "room {room}");
    }
}

#[tokio::test]
async fn a_cut_inside_the_header_writes_the_header_and_nothing_of_the_device() {
    let (mut pump, mut device, broker) = pump(b"HEADER", 3);
    device.write_all(&packet(20)).await.unwrap();
    carry(&mut pump).await;
    let (_, mut end) = pump.cut(true);
    assert!(end.tells());
    let read = tokio::spawn(rest(broker));
    end.finish().await.unwrap();
    drop(end);
    assert_eq!(read.await.unwrap(), [b"HEADER".as_slice(), &DISCONNECT].concat());
}

#[tokio::test]
async fn a_cut_that_keeps_the_will_writes_nothing_more() {
    let (mut pump, mut device, broker) = pump(b"", 15);
    device.write_all(&packet(20)).await.unwrap();
    carry(&mut pump).await;
    let (_, mut end) = pump.cut(false);
    assert!(!end.tells());
    let read = tokio::spawn(rest(broker));
    end.finish().await.unwrap();
    drop(end);
    assert_eq!(read.await.unwrap(), packet(20)[..15]);
}

#[tokio::test(start_paused = true)]
async fn a_side_that_takes_something_now_and_then_is_not_given_up() {
    let (mut pump, mut device, mut broker) = pump(b"", 10);
    device.write_all(&packet(100)).await.unwrap();
    let running = tokio::spawn(async move { std::future::poll_fn(|cx| pump.poll(cx)).await });
    for _ in 0..3 {
        tokio::time::sleep(LIMITS.stall * 2 / 3).await;
        broker.read_exact(&mut [0; 10]).await.unwrap();
        assert!(!running.is_finished());
    }
    assert_eq!(running.await.unwrap().unwrap(), End::Stalled);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_does_not_close_after_its_device_is_left_behind() {
    let (mut pump, device, mut broker) = pump(b"", 100);
    drop(device);
    let end = std::future::poll_fn(|cx| pump.poll(cx)).await.unwrap();
    assert_eq!(end, End::Device);
    drop(pump);
    assert_eq!(broker.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn an_idle_session_holds_no_buffer() {
    let (mut pump, mut device, mut broker) = pump(b"", 10);
    device.write_all(&packet(100)).await.unwrap();
    carry(&mut pump).await;
    assert!(!pump.to_broker.is_empty());
    let mut read = [0; 100];
    let mut got = 0;
    while got < 100 {
        got += broker.read(&mut read[got..]).await.unwrap();
        carry(&mut pump).await;
    }
    assert_eq!(pump.to_broker.bytes.capacity() + pump.held.capacity(), 0);
    assert!(pump.timer.is_none());
}
