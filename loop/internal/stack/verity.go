package stack

import (
	"fmt"
	"math"
	"math/bits"

	"github.com/ublk-loop/ublk-loop/loop/internal/mapping"
	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/transfer/table"
	"github.com/ublk-loop/ublk-loop/transfer/verity"
)

const (
	// MaxVerity is the largest number of lines with the target verity.
	MaxVerity = 64
	// cacheBytes is the memory for the hash blocks that a queue remembers, of all lines
	// together.
	cacheBytes = 4 << 20
	// maxOnce is the largest number of data blocks for check_at_most_once, as in the kernel.
	maxOnce = math.MaxInt32
)

// layer is a layer of the plan: crypt, whose transfer is set, or verity.
type layer struct {
	transfer transfer.Transfer
	verity   *verityLayer
}

// verityLayer is a line with the target verity. All queues share it.
type verityLayer struct {
	*table.Verity
	name       string // of the table
	data, hash mapping.Below
	params     verity.Params
	blockShift uint    // of the size of a data block in sectors
	once       *bitmap // data blocks that have been right; nil without check_at_most_once
	zero       []byte  // digest of zeroes; nil without ignore_zero_blocks
	corrupt    *corruptions
}

// verities returns the number of lines with the target verity.
func verities(s *table.Stack) (n int) {
	for range table.Targets[*table.Verity](s) {
		n++
	}
	return n
}

// makeLayers makes the layers of the plan, when their transfers exist.
func (s *Stack) makeLayers() error {
	s.corrupt = newCorruptions(verities(s.tables))
	transfers := s.transfers
	for i, target := range s.plan.Layers() {
		t, ok := target.(*table.Verity)
		if !ok {
			s.layers = append(s.layers, layer{transfer: transfers[0]})
			transfers = transfers[1:]
			continue
		}
		l, err := s.newVerity(i, t)
		if err != nil {
			return err
		}
		s.layers = append(s.layers, layer{verity: l})
		s.verities++
	}
	return nil
}

func (s *Stack) newVerity(number int, t *table.Verity) (*verityLayer, error) {
	l := &verityLayer{
		Verity: t, params: t.Tree.Params(), data: s.plan.Data(number), hash: s.plan.Tree(number), corrupt: s.corrupt,
	}
	l.blockShift = uint(bits.TrailingZeros32(l.params.DataBlockSize >> sectorShift))
	var line *table.Line
	line, l.name = s.lineOf(t)
	if t.Options.Has(table.CheckAtMostOnce) {
		if err := s.makeOnce(l, line.Length); err != nil {
			return nil, s.inVerity(t, err)
		}
	}
	if t.Options.Has(table.IgnoreZeroBlocks) {
		l.zero = t.Tree.ZeroDigest()
	}
	return l, nil
}

// makeOnce makes the set of data blocks that have been right, for a line of some sectors.
func (s *Stack) makeOnce(l *verityLayer, sectors uint64) error {
	if l.params.DataBlocks > maxOnce {
		return fmt.Errorf("check_at_most_once of %d data blocks, more than %d: %w", l.params.DataBlocks, maxOnce, table.ErrLimit)
	}
	if s.described {
		return nil
	}
	var err error
	l.once, err = s.arenas.newBitmap(sectors >> l.blockShift)
	return err
}

// lineOf returns the line of a target, which is the only one of its table, and the name of the
// table.
func (s *Stack) lineOf(target table.Target) (*table.Line, string) {
	for i := range s.tables.Tables {
		t := &s.tables.Tables[i]
		if t.Lines[0].Target == target {
			return &t.Lines[0], t.Name
		}
	}
	panic("stack: a target of no table")
}

func (s *Stack) inVerity(t *table.Verity, err error) error {
	_, name := s.lineOf(t)
	return &table.StackError{Table: name, Line: 1, Target: t.Type(), Err: err}
}

// wrong counts and reports a wrong block. It reports whether the request fails.
func (l *verityLayer) wrong(tree bool, block uint64) bool {
	l.corrupt.add(Corruption{Table: l.name, Tree: tree, Block: block})
	return !l.Options.Has(table.IgnoreCorruption)
}

// Checks reports whether a part of the device is verity, so that reads of it can fail with EIO
// where others succeed.
func (s *Stack) Checks() bool { return s.verities > 0 }

// newVerifier returns the verifier of a queue.
func (s *Stack) newVerifier(l *verityLayer) (*verity.Verifier, error) {
	size := int(l.params.HashBlockSize)
	const set = 8 // a verifier uses memory in sets of so many hash blocks
	n := min(uint64(cacheBytes/s.verities/size), (l.Tree.HashBlocks()+set-1)/set*set)
	cache, err := s.newArena(int(n) * size)
	if err != nil {
		return nil, err
	}
	return verity.NewVerifier(l.Tree, l.Root, cache)
}

// newArena is arenas.add for the threads of queues.
func (s *Stack) newArena(n int) ([]byte, error) {
	s.memoryMu.Lock()
	defer s.memoryMu.Unlock()
	return s.arenas.add(n)
}
