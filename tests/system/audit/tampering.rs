//! Whoever has the whole database cannot change the log unnoticed: `verify` names the place.

use anyhow::Context as _;
use serde_json::Value;

use super::ledger::{LAST, Ledger, MIDDLE};

/// Makes a test of each case on each engine.
macro_rules! on_both_engines {
    ($($case:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() -> anyhow::Result<()> {
                super::$case(&super::Ledger::sqlite().await?).await
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() -> anyhow::Result<()> {
                super::$case(&super::Ledger::postgres().await?).await
            })*
        }
    };
}

on_both_engines!(
    one_byte_changed_in_any_column_is_found_at_its_position,
    a_removed_row_is_found_at_its_position,
    two_swapped_rows_are_found_at_the_first_of_them,
    a_cut_tail_is_found_by_the_read_model_alone,
);

/// Verifies a damaged log; gives the first place.
async fn first_damage(ledger: &Ledger, more: &[&str]) -> anyhow::Result<(Option<i64>, String)> {
    let (code, report) = ledger.verify(more).await?;
    anyhow::ensure!(code == Some(1) && report["clean"] == false, "{code:?}: {report}");
    let kind = report["first"]["kind"].as_str().with_context(|| report.to_string())?.to_owned();
    Ok((report["first"]["position"].as_i64(), kind))
}

async fn clean(ledger: &Ledger, more: &[&str]) -> anyhow::Result<Value> {
    let (code, report) = ledger.verify(more).await?;
    anyhow::ensure!(code == Some(0) && report["clean"] == true, "{code:?}: {report}");
    Ok(report)
}

async fn one_byte_changed_in_any_column_is_found_at_its_position(ledger: &Ledger) -> anyhow::Result<()> {
    let report = clean(ledger, &[]).await?;
    assert_eq!((report["events"].as_i64(), report["headPosition"].as_i64()), (Some(LAST), Some(LAST)));
    let changes = ledger.changes().await?;
    assert_eq!(changes.len(), 19, "{changes:?}");
    for (column, value) in changes {
        let context = format!("{column} = {value}");
        let update = format!("UPDATE events SET {column} = {value} WHERE position = {MIDDLE}");
        ledger.execute(&update).await.with_context(|| context.clone())?;
        let (position, kind) = first_damage(ledger, &[]).await.with_context(|| context.clone())?;
        let kinds: &[&str] = match column.as_str() {
            "position" => &["ROW_MISSING"],
            // What parses no more cannot be hashed.
            "event_id" | "request_id" | "sn" | "payload" => &["CHAIN_BROKEN", "ROW_UNREADABLE"],
            _ => &["CHAIN_BROKEN"],
        };
        assert_eq!(position, Some(MIDDLE), "{context}: {kind}");
        assert!(kinds.contains(&kind.as_str()), "{context}: {kind}");
        ledger.restore().await?;
    }
    clean(ledger, &[]).await?;
    Ok(())
}

async fn a_removed_row_is_found_at_its_position(ledger: &Ledger) -> anyhow::Result<()> {
    for position in [1, MIDDLE, LAST - 1] {
        ledger.execute(&format!("DELETE FROM events WHERE position = {position}")).await?;
        assert_eq!(first_damage(ledger, &[]).await?, (Some(position), "ROW_MISSING".to_owned()));
        ledger.restore().await?;
    }
    clean(ledger, &[]).await?;
    Ok(())
}

async fn two_swapped_rows_are_found_at_the_first_of_them(ledger: &Ledger) -> anyhow::Result<()> {
    for (one, other) in [(MIDDLE, MIDDLE + 1), (2, LAST)] {
        for (from, to) in [(one, 1_000), (other, one), (1_000, other)] {
            ledger.execute(&format!("UPDATE events SET position = {to} WHERE position = {from}")).await?;
        }
        assert_eq!(first_damage(ledger, &[]).await?.0, Some(one));
        ledger.restore().await?;
    }
    clean(ledger, &[]).await?;
    Ok(())
}

/// The read model is in the same database: whoever builds it anew has hidden the cut, from
/// everything but what left the database.
async fn a_cut_tail_is_found_by_the_read_model_alone(ledger: &Ledger) -> anyhow::Result<()> {
    ledger.execute(&format!("DELETE FROM events WHERE position > {MIDDLE}")).await?;
    assert_eq!(first_damage(ledger, &[]).await?, (None, "READ_MODEL".to_owned()));
    ledger.command(&["rebuild"]).await?.success()?;
    clean(ledger, &[]).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_tail_is_found_by_the_stream() -> anyhow::Result<()> {
    let ledger = Ledger::postgres().await?;
    let report = clean(&ledger, &["--stream"]).await?;
    assert_eq!(report["stream"]["lastSequence"], LAST);
    assert!(report["stream"]["compared"].as_u64() >= Some(3), "{report}");
    ledger.execute(&format!("DELETE FROM events WHERE position > {MIDDLE}")).await?;
    ledger.command(&["rebuild"]).await?.success()?;
    clean(&ledger, &[]).await?;
    assert_eq!(first_damage(&ledger, &["--stream"]).await?, (Some(MIDDLE + 1), "TAIL_CUT".to_owned()));
    ledger.restore().await?;
    ledger.command(&["rebuild"]).await?.success()?;
    clean(&ledger, &["--stream"]).await?;
    Ok(())
}

/// A forger who computes all hashes anew has a perfect log; only the published one is
/// another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_was_chained_anew_is_found_by_the_stream() -> anyhow::Result<()> {
    let ledger = Ledger::postgres().await?;
    ledger.chain_anew(1).await?;
    clean(&ledger, &["--stream"]).await?;
    let forge = format!("UPDATE events SET actor = 'somebody else' WHERE position = {}", LAST - 1);
    ledger.execute(&forge).await?;
    ledger.chain_anew(LAST - 1).await?;
    ledger.command(&["rebuild"]).await?.success()?;
    clean(&ledger, &[]).await?;
    let (position, kind) = first_damage(&ledger, &["--stream"]).await?;
    assert_eq!((position, kind.as_str()), (Some(LAST - 1), "NOT_AS_PUBLISHED"));
    Ok(())
}
