//! Keeps the log short: copies what still counts out of the oldest segment to the end, then removes that segment.
//!
//! Always the *oldest*: when it goes, nothing older is left, so a delete in it hides nothing any more and can be
//! forgotten. The log never takes more than twice its live data plus two segments, and each byte is copied at most
//! about once for each byte of new changes.

use std::io;

use super::{Damage, DamageKind, damage, disk::failed, log::Shared, state::read_value, writer::Writer};
use crate::{
    error::{Error, Result},
    log,
};

/// A frame of copies ends once it has this many bytes; bounds the memory that cleaning takes.
const COPY_BYTES: usize = 256 << 10;

/// Segments' worth of dead bytes that are left alone, so that a small store is not cleaned all the time.
const SLACK_SEGMENTS: u64 = 2;

impl Writer {
    /// Cleans one segment, if there are enough dead bytes. A failure costs nothing but room and is tried again.
    pub(super) fn clean_if_worth_it(&mut self, shared: &Shared) {
        let worth_it = {
            let state = shared.state();
            state.segments.len() > 1
                && state.log_bytes() > 2 * state.live_bytes + SLACK_SEGMENTS * shared.settings.segment_bytes
        };
        if !worth_it {
            return;
        }
        match self.clean_oldest(shared) {
            Ok(()) if self.cleaning_fails => {
                self.cleaning_fails = false;
                log::info!("the state log is cleaned again");
            }
            Ok(()) => {}
            Err(error) if !self.cleaning_fails => {
                self.cleaning_fails = true;
                log::warn!("the state log grows until it can be cleaned: {error}");
            }
            Err(_) => {}
        }
    }

    /// Rewrites every segment up to the last damaged one, whose damage has been set aside.
    pub(super) fn clean_damaged(&mut self, shared: &Shared) {
        let Some(last) = self.damaged_up_to else { return };
        if self.active.is_some_and(|active| active <= last) {
            self.active = None;
        }
        loop {
            let oldest = shared.state().segments.keys().next().copied();
            let Some(oldest) = oldest.filter(|oldest| *oldest <= last) else { break };
            if let Err(error) = self.clean_oldest(shared) {
                log::warn!("segment {oldest:08x} of the state log stays as it is until the next start: {error}");
                return;
            }
        }
        self.damaged_up_to = None;
    }

    /// Removes segments from the old end that hold nothing live; writes nothing. Answers whether there were any.
    pub(super) fn remove_dead_segments(&mut self, shared: &Shared) -> bool {
        let mut removed = false;
        loop {
            let oldest = {
                let state = shared.state();
                state.segments.iter().next().map(|(number, segment)| (*number, segment.live))
            };
            match oldest {
                Some((number, 0)) if self.active != Some(number) && self.retire(shared, number, false).is_ok() => {
                    removed = true;
                }
                _ => return removed,
            }
        }
    }

    fn clean_oldest(&mut self, shared: &Shared) -> Result<()> {
        let (number, keys) = {
            let state = shared.state();
            let Some(number) = state.segments.keys().next().copied() else { return Ok(()) };
            let keys: Vec<Box<[u8]>> = state
                .index
                .iter()
                .filter(|(_, location)| location.segment == number)
                .map(|(key, _)| key.clone())
                .collect();
            (number, keys)
        };
        let mut lost = Vec::new();
        let mut copies: Vec<(Box<[u8]>, Vec<u8>)> = Vec::new();
        let mut bytes = 0;
        for key in keys {
            let Some((file, location)) = shared.state().locate(&key) else { continue };
            match read_value(shared.disk.as_ref(), file.as_ref(), location) {
                Ok(value) => {
                    bytes += key.len() + value.len();
                    copies.push((key, value));
                }
                Err(error) => lost.push((key, location, error)),
            }
            if bytes >= COPY_BYTES {
                self.copy(shared, &std::mem::take(&mut copies))?;
                bytes = 0;
            }
        }
        self.copy(shared, &copies)?;
        self.retire(shared, number, !lost.is_empty())
            .map_err(|cause| failed("cannot remove an old file", shared.disk.as_ref(), &cause))?;
        self.report_lost(shared, number, lost);
        Ok(())
    }

    fn copy(&mut self, shared: &Shared, copies: &[(Box<[u8]>, Vec<u8>)]) -> Result<()> {
        if copies.is_empty() {
            return Ok(());
        }
        let changes: Vec<(&[u8], Option<&[u8]>)> = copies.iter().map(|(key, value)| (&**key, Some(&**value))).collect();
        let written = self
            .append(shared, &changes)
            .map_err(|(what, cause)| failed(&format!("cannot {what}"), shared.disk.as_ref(), &cause))?;
        self.apply(shared, written);
        Ok(())
    }

    /// Removes the oldest segment, or moves it to the damaged ones; durable before the next one may go, because a
    /// delete in that one may hide a value in this one.
    fn retire(&mut self, shared: &Shared, number: u32, keep: bool) -> io::Result<()> {
        if self.unsynced_removal {
            shared.disk.sync_dir("")?;
            self.unsynced_removal = false;
        }
        let Some(name) = shared.state().segments.get(&number).map(|segment| segment.name.clone()) else {
            return Ok(());
        };
        self.unsynced_removal = true;
        if keep {
            damage::move_aside(&shared.disk, &name)?;
        } else {
            shared.disk.remove(&name)?;
        }
        shared.state_mut().segments.remove(&number);
        shared.disk.sync_dir("")?;
        self.unsynced_removal = false;
        Ok(())
    }

    fn report_lost(&mut self, shared: &Shared, number: u32, lost: Vec<(Box<[u8]>, super::state::Location, Error)>) {
        for (key, location, error) in lost {
            shared.state_mut().delete(&key);
            let damage = Damage {
                kind: DamageKind::Record,
                file: format!("segment {number:08x}"),
                offset: u64::from(location.offset),
                bytes: u64::from(location.bytes),
                reason: format!("the value of key {} cannot be read any more: {error}", key.escape_ascii()),
                set_aside: Some(format!("{}/ (the whole segment)", damage::DAMAGED_DIR)),
            };
            log::error!("state damaged: {damage}");
            shared.damage.lock().push(damage);
        }
    }
}
