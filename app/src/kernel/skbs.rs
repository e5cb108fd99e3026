//! The kernel side's counts of `sk_buff`s.

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{HashMap as Table, MapData, PerCpuHashMap},
};
use bytemuck::pod_read_unaligned;
use socklife_abi::skb::{CallerTally, ConnectionTally};

/// All that was counted since the start.
#[derive(Clone, Debug, Default)]
pub struct SkbCounts {
    /// By return address.
    pub callers: Vec<(u64, CallerTally)>,
    /// By key.
    pub connections: Vec<(u64, ConnectionTally)>,
}

/// The tables, as bytes: the types are the kernel side's.
pub struct SkbTables {
    callers: PerCpuHashMap<MapData, u64, [u8; size_of::<CallerTally>()]>,
    connections: Table<MapData, u64, [u8; size_of::<ConnectionTally>()]>,
}

impl SkbTables {
    /// Of a loaded object.
    pub fn of(ebpf: &mut Ebpf) -> Result<Self> {
        let mut take = |name: &str| {
            ebpf.take_map(name)
                .with_context(|| format!("the object has no map {name}"))
        };
        let (callers, connections) = (take("SKB_CALLERS")?, take("SKB_CONNECTIONS")?);
        Ok(Self {
            callers: PerCpuHashMap::try_from(callers).context("cannot use the map SKB_CALLERS")?,
            connections: Table::try_from(connections).context("cannot use the map SKB_CONNECTIONS")?,
        })
    }

    /// Everything. A connection that is closed and has nothing alive is taken out.
    pub fn read(&mut self) -> Result<SkbCounts> {
        let mut counts = SkbCounts::default();
        for entry in self.callers.iter() {
            let (caller, of_cpus) = entry.context("cannot read the table of callers")?;
            let mut sum = CallerTally::default();
            for bytes in of_cpus.iter() {
                let tally: CallerTally = pod_read_unaligned(bytes);
                sum.allocated += tally.allocated;
                sum.freed += tally.freed;
                sum.bytes += tally.bytes;
                sum.truesize += tally.truesize;
                sum.truesize_freed += tally.truesize_freed;
                sum.lifetime_ns += tally.lifetime_ns;
            }
            counts.callers.push((caller, sum));
        }
        for entry in self.connections.iter() {
            let (key, bytes) = entry.context("cannot read the table of connections")?;
            let tally: ConnectionTally = pod_read_unaligned(&bytes);
            counts.connections.push((key, tally));
        }
        for (key, tally) in &counts.connections {
            if tally.closed != 0 && tally.alive() == 0 {
                // Nothing is counted of it any more.
                let _ = self.connections.remove(key);
            }
        }
        Ok(counts)
    }
}
