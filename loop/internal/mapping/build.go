package mapping

import (
	"fmt"
	"math"

	"github.com/ublk-loop/ublk-loop/transfer/table"
)

// maxExtents is the largest number of extents and stripes of a plan. A table can
// use another many times, so that the number can double with each table.
const maxExtents = 1 << 16

// builder is the state of New.
type builder struct {
	plan    *Plan
	stack   *table.Stack
	tables  []*space       // of the tables so far
	devices map[string]int // numbers of the devices
	stores  []Store        // of the snapshots that are left
	size    int            // extents and stripes so far
}

// New returns the plan of a stack that table.Stack.CheckDevices has accepted. stores are those
// of its snapshots, in the order of the text. It returns table.ErrLimit for a plan with too
// many extents.
func New(stack *table.Stack, stores []Store) (*Plan, error) {
	b := builder{plan: &Plan{}, stack: stack, devices: make(map[string]int), stores: stores}
	for i, device := range stack.Devices() {
		b.devices[device] = i
	}
	for i := range stack.Tables {
		s, err := b.table(&stack.Tables[i])
		if err != nil {
			return nil, fmt.Errorf("map table %d: %w", i, err)
		}
		b.tables = append(b.tables, s)
	}
	p := b.plan
	p.top = b.tables[len(b.tables)-1]
	p.size = p.top.size
	if stack.Resizable() != nil {
		p.top.size = math.MaxInt64 // the driver knows the size, and can change it
	}
	p.levels = p.top.levels
	p.flush = p.flushDevices(p.top, make(map[*space]bool))
	return p, nil
}

// table returns the space of a table.
func (b *builder) table(t *table.Table) (*space, error) {
	s := &space{size: toBytes(t.Sectors()), frames: 1}
	for i := range t.Lines {
		if err := b.line(s, &t.Lines[i]); err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
	}
	return s, nil
}

// line appends the extents of a line to a space.
func (b *builder) line(s *space, l *table.Line) error {
	start, length := toBytes(l.Start), toBytes(l.Length)
	switch t := l.Target.(type) {
	case *table.Linear:
		return b.copy(s, start, length, b.branch(&t.Location))
	case *table.Striped:
		return b.striped(s, start, length, t)
	case *table.Crypt:
		return b.layer(s, start, layer{target: t, below: b.branch(&t.Location)})
	case *table.Verity:
		l := layer{target: t, below: b.branch(&table.Location{Device: t.Data}), tree: b.branch(&table.Location{Device: t.Hash})}
		switch {
		case l.tree.space.checked:
			return fmt.Errorf("a hash tree on a device with the target verity: %w", table.ErrUnsupported)
		case l.tree.space.covered:
			return fmt.Errorf("a hash tree on a snapshot of a device with the target crypt: %w", table.ErrUnsupported)
		}
		s.checked = true
		return b.layer(s, start, l)
	case *table.Snapshot:
		origin := b.branch(&table.Location{Device: t.Origin})
		b.plan.changes = append(b.plan.changes, changes{b.stores[0], origin, b.devices[b.stack.StoreDevice(t)], b.storeCipher(t), t.DiscardZeroes})
		b.stores = b.stores[1:]
		s.inherit(origin.space)
		if b.plan.changes[len(b.plan.changes)-1].cipher != 0 {
			s.levels = max(s.levels, 1)
		}
		s.covered = s.covered || s.levels > 0
		return b.append(s, extent{start, kindSnapshot, len(b.plan.changes) - 1, 0})
	case *table.Zero:
		b.plan.zeroes = true
		return b.append(s, extent{start: start, kind: kindZero})
	case *table.ErrorTarget:
		return b.append(s, extent{start: start, kind: kindError})
	default:
		return fmt.Errorf("target %s: %w", t.Type(), table.ErrUnsupported)
	}
}

// storeCipher returns Piece.Cipher of the store of a snapshot.
func (b *builder) storeCipher(t *table.Snapshot) int {
	i, ok := b.stack.Table(t.Store)
	if !ok {
		return 0
	}
	return b.tables[i].extents[0].index + 1 // the only extent is the layer of the only line
}

// inherit gives a space the layers of one below it.
func (s *space) inherit(below *space) {
	s.levels = max(s.levels, below.levels)
	s.checked = s.checked || below.checked
	s.covered = s.covered || below.covered
}

// layer appends a line that is a layer.
func (b *builder) layer(s *space, start uint64, l layer) error {
	s.inherit(l.below.space)
	s.levels = max(s.levels, l.below.space.levels+1)
	s.frames = max(s.frames, l.below.space.frames+1)
	b.plan.layers = append(b.plan.layers, l)
	return b.append(s, extent{start, kindLayer, len(b.plan.layers) - 1, 0})
}

// striped appends a striped line. A single stripe is linear.
func (b *builder) striped(s *space, start, length uint64, t *table.Striped) error {
	if len(t.Stripes) == 1 {
		return b.copy(s, start, length, b.branch(&t.Stripes[0]))
	}
	st := stripes{chunk: toBytes(uint64(t.Chunk))}
	for i := range t.Stripes {
		branch := b.branch(&t.Stripes[i])
		st.branches = append(st.branches, branch)
		s.inherit(branch.space)
		s.frames = max(s.frames, branch.space.frames+2)
	}
	b.size += len(st.branches)
	b.plan.stripes = append(b.plan.stripes, st)
	return b.append(s, extent{start, kindStripes, len(b.plan.stripes) - 1, 0})
}

// branch returns the place of a location: in a table, or in a space with
// nothing but a device.
func (b *builder) branch(l *table.Location) branch {
	offset := toBytes(l.Start)
	if i, ok := b.stack.Table(l.Device); ok {
		return branch{b.tables[i], offset}
	}
	return branch{&space{extents: []extent{{index: b.devices[l.Device]}}, size: math.MaxInt64, frames: 1}, offset}
}

// copy appends what is below a range of a space.
func (b *builder) copy(s *space, start, length uint64, below branch) error {
	s.inherit(below.space)
	s.frames = max(s.frames, below.space.frames)
	for length > 0 {
		e, n := below.space.find(below.offset)
		n = min(n, length)
		c := *e
		c.offset += below.offset - e.start
		c.start = start
		if err := b.append(s, c); err != nil {
			return err
		}
		start, below.offset, length = start+n, below.offset+n, length-n
	}
	return nil
}

// append appends an extent, or nothing if it continues the last one.
func (b *builder) append(s *space, e extent) error {
	if n := len(s.extents); n > 0 && s.extents[n-1].continuedBy(&e) {
		return nil
	}
	if b.size++; b.size > maxExtents {
		return fmt.Errorf("more than %d extents: %w", maxExtents, table.ErrLimit)
	}
	s.extents = append(s.extents, e)
	return nil
}

// continuedBy reports whether the next extent is one with this.
func (e *extent) continuedBy(next *extent) bool {
	if e.kind != next.kind || e.index != next.index {
		return false
	}
	return e.kind == kindZero || e.kind == kindError || e.offset+next.start-e.start == next.offset
}
