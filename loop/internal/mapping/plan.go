package mapping

import (
	"slices"

	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/transfer/table"
)

// A Plan maps the addresses of a device to those of files and disks. It does not change, also
// when the device gets another size.
type Plan struct {
	top     *space
	size    uint64
	stripes []stripes
	layers  []layer
	changes []changes
	levels  int
	flush   []int
	zeroes  bool
}

// space is an address range. The extents are sorted and leave no gap.
type space struct {
	extents []extent
	size    uint64
	levels  int  // layers on the path with the most of them
	checked bool // a layer of it is verity
	covered bool // a snapshot of it has layers in its origin
	frames  int  // of a RangeWalk, at most
}

// extent is a part of a space, up to the next extent.
type extent struct {
	start  uint64 // in the space
	kind   kind
	index  int    // of the device, in stripes, in layers, or in changes
	offset uint64 // of the start in what the index says
}

// kind says what an extent is.
type kind uint8

const (
	kindDevice kind = iota
	kindZero
	kindError
	kindStripes
	kindLayer
	kindSnapshot
)

// branch is a place in a space.
type branch struct {
	space  *space
	offset uint64
}

// stripes are the branches over which chunks are distributed.
type stripes struct {
	chunk    uint64
	branches []branch
}

// layer is a target that changes or checks the bytes, above a branch.
type layer struct {
	target table.Target
	below  branch
	tree   branch // of verity
}

// Size returns the size of the device. If the stack can be resized, the plan also maps what is
// behind that.
func (p *Plan) Size() uint64 { return p.size }

// Levels returns the number of layers above each other on the path with the most
// of them. It is 0 if no layer changes any byte.
func (p *Plan) Levels() int { return p.levels }

// Covered reports whether a snapshot of the plan has layers in its origin.
func (p *Plan) Covered() bool { return p.top.covered }

// Layers returns the targets of the layers, each a *table.Crypt or *table.Verity, in the order
// of Run.Layer, which is that of the text.
func (p *Plan) Layers() []table.Target {
	targets := make([]table.Target, len(p.layers))
	for i := range p.layers {
		targets[i] = p.layers[i].target
	}
	return targets
}

// FlushDevices returns the devices that a flush goes to: those that can hold
// data of the device, in ascending order.
func (p *Plan) FlushDevices() []int { return p.flush }

// HasZeroes reports whether a part of the device is zero.
func (p *Plan) HasZeroes() bool { return p.zeroes }

// MaxPieces returns a limit of the number of pieces of any request; ok is false if only
// the request limits it.
func (p *Plan) MaxPieces() (n int, ok bool) {
	return len(p.top.extents), len(p.stripes)+len(p.layers)+len(p.changes) == 0
}

// find returns the extent at an offset, and the number of bytes to its end.
func (s *space) find(offset uint64) (*extent, uint64) {
	low, high := 0, len(s.extents)
	for high-low > 1 {
		middle := int(uint(low+high) >> 1)
		if s.extents[middle].start <= offset {
			low = middle
		} else {
			high = middle
		}
	}
	end := s.size
	if low+1 < len(s.extents) {
		end = s.extents[low+1].start
	}
	return &s.extents[low], end - offset
}

// place returns the branch of a byte, and the number of bytes to the end of its
// chunk (stripe_map_sector in drivers/md/dm-stripe.c).
func (s *stripes) place(offset uint64) (b *branch, in, left uint64) {
	chunk, within := offset/s.chunk, offset%s.chunk
	count := uint64(len(s.branches))
	row, i := chunk/count, chunk%count
	b = &s.branches[i]
	return b, b.offset + row*s.chunk + within, s.chunk - within
}

// flushDevices returns the devices below a space.
func (p *Plan) flushDevices(s *space, seen map[*space]bool) (devices []int) {
	if seen[s] {
		return nil
	}
	seen[s] = true
	for i := range s.extents {
		switch e := &s.extents[i]; e.kind {
		case kindDevice:
			devices = append(devices, e.index)
		case kindStripes:
			for _, b := range p.stripes[e.index].branches {
				devices = append(devices, p.flushDevices(b.space, seen)...)
			}
		case kindLayer:
			if l := &p.layers[e.index]; l.writable() {
				devices = append(devices, p.flushDevices(l.below.space, seen)...)
			}
		case kindSnapshot:
			devices = append(devices, p.changes[e.index].device) // the origin does not change
		}
	}
	slices.Sort(devices)
	return slices.Compact(devices)
}

// writable reports whether writes go through a layer.
func (l *layer) writable() bool {
	_, ok := l.target.(*table.Crypt)
	return ok
}

// toBytes converts sectors.
func toBytes(sectors uint64) uint64 { return sectors << transfer.SectorShift }
