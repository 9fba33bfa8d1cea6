package snapshot

import "sync/atomic"

// A Slot is the state of a chunk of the origin: without an exception, pending, or replaced
// by a chunk of the store. A replaced chunk can be merging.
type Slot uint32

const (
	none    Slot = 0
	pending Slot = 1<<32 - 1
	// merging is set for a chunk whose data is being copied to the origin.
	merging Slot = 1 << 31
)

// slotOf returns the slot of a chunk of the store. The number is stored plus 1, because
// a transient store uses chunk 0.
func slotOf(chunk uint64) Slot { return Slot(chunk + 1) }

// IsNone reports whether the chunk has no exception: the data is in the origin.
func (s Slot) IsNone() bool { return s == none }

// IsPending reports whether the first write to the chunk is going on. Until it is
// published, reads get the data of the origin.
func (s Slot) IsPending() bool { return s == pending }

// Chunk returns the chunk of the store. It is valid if the slot is neither none nor
// pending.
func (s Slot) Chunk() uint64 { return uint64(s&^merging) - 1 }

// Replaced reports whether the data is in the store.
func (s Slot) Replaced() bool { return s+1 > 1 }

// Writable reports whether the data is in the store and may be overwritten there: the chunk
// is neither pending nor merging.
func (s Slot) Writable() bool { return int32(s) > 0 }

// IndexLength returns the number of uint32 that an index of an origin needs: one for
// each chunk.
func IndexLength(l Layout, originSize uint64) (uint64, error) { return l.OriginChunks(originSize) }

// An Index has the slot of each chunk of the origin. A look-up is one atomic load. The
// methods may be called from any number of goroutines.
//
// A chunk becomes pending by Claim, which succeeds for one caller only. The owner ends
// this state by Publish or Drop.
type Index struct {
	slots []uint32
}

// NewIndex returns an index in memory of the caller, which is zero and has IndexLength
// elements.
func NewIndex(memory []uint32) Index { return Index{memory} }

// Len returns the number of chunks of the origin.
func (x Index) Len() uint64 { return uint64(len(x.slots)) }

// Lookup returns the slot of a chunk of the origin.
func (x Index) Lookup(chunk uint64) Slot { return Slot(atomic.LoadUint32(&x.slots[chunk])) }

// Claim makes a chunk without an exception pending. It reports whether it did.
func (x Index) Claim(chunk uint64) bool {
	return atomic.CompareAndSwapUint32(&x.slots[chunk], uint32(none), uint32(pending))
}

// Publish says that a chunk of the origin is replaced by a chunk of the store.
func (x Index) Publish(chunk, replacement uint64) {
	atomic.StoreUint32(&x.slots[chunk], uint32(slotOf(replacement)))
}

// BeginMerge makes a writable chunk one that is merging: reads still get the data of the store,
// and writes wait. The caller makes sure that no write to the chunk is going on. Drop ends the
// state when the data is in the origin, EndMerge if it stays in the store.
func (x Index) BeginMerge(chunk uint64) {
	atomic.StoreUint32(&x.slots[chunk], uint32(x.Lookup(chunk)|merging))
}

// EndMerge makes a merging chunk writable again.
func (x Index) EndMerge(chunk uint64) {
	atomic.StoreUint32(&x.slots[chunk], uint32(x.Lookup(chunk)&^merging))
}

// Drop says that a chunk has no exception: its first write failed, or it was merged
// into the origin.
func (x Index) Drop(chunk uint64) { atomic.StoreUint32(&x.slots[chunk], uint32(none)) }
