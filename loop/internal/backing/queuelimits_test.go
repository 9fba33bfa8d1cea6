package backing

import (
	"errors"
	"math"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk"
)

// oddBacking is the disk of oddLimits, with direct I/O.
func oddBacking() *Backing {
	return &Backing{
		Path: "/dev/sda", IsDisk: true, Direct: true, ringDiscard: true, SectorSize: 1024, Size: 1 << 30,
		memAlign: 16, blockSize: 4096, queue: oddLimits(),
	}
}

// oddParams are the driver's parameters for oddBacking, with zero copy.
func oddParams() ublk.Params {
	return ublk.Params{
		Size: 1 << 30, LogicalBlockSize: 1024, PhysicalBlockSize: 8192,
		IOMin: 16384, IOOpt: 65536, // the disk's is 3 × 65536
		MaxIOBytes: 254 << 9, ChunkBytes: 384 << 9,
		VirtBoundaryMask: 4095, DMAAlignment: 15,
		Segments:   ublk.SegmentParams{MaxSegments: 13, MaxSegmentSize: math.MaxUint32, BoundaryMask: math.MaxUint32},
		Rotational: true,
		Discard:    ublk.DiscardParams{MaxBytes: 49152 << 9, Granularity: 24576},

		MaxWriteZeroesBytes: 1 << 30,
	}
}

// oddLimit is a mode or a change of oddBacking, and the change of its parameters.
type oddLimit struct {
	name   string
	mode   ublk.BufferMode
	change func(b *Backing)
	want   func(p *ublk.Params)
}

// oddLimitCases are the cases of TestLimits.
var oddLimitCases = []oddLimit{
	{"zero copy", ublk.BufferAutoRegister, nil, nil},
	{"zero copy by command", ublk.BufferRegister, nil, nil},
	{"copy", ublk.BufferCopy, nil, withoutMemoryLimits},
	{"buffered", ublk.BufferAutoRegister, func(b *Backing) { b.Direct = false }, func(p *ublk.Params) {
		withoutMemoryLimits(p)
		p.VolatileCache, p.FUA = true, true
	}},
	{"write cache", ublk.BufferAutoRegister, func(b *Backing) { b.queue.writeCache = true }, func(p *ublk.Params) {
		p.VolatileCache, p.FUA = true, true
	}},
	{"write cache without FUA", ublk.BufferAutoRegister, func(b *Backing) { b.queue.writeCache, b.queue.fua = true, false }, func(p *ublk.Params) {
		p.VolatileCache = true
	}},
	{"read-only", ublk.BufferAutoRegister, func(b *Backing) { b.ReadOnly = true }, func(p *ublk.Params) {
		p.ReadOnly, p.Discard, p.MaxWriteZeroesBytes = true, ublk.DiscardParams{}, 0
	}},
	{"larger sectors", ublk.BufferAutoRegister, func(b *Backing) { b.SectorSize, b.queue.physicalBlockSize = 4096, 512 }, func(p *ublk.Params) {
		p.LogicalBlockSize, p.PhysicalBlockSize = 4096, 4096
		p.MaxIOBytes = 248 << 9
	}},
	{"an offset of a chunk", ublk.BufferAutoRegister, func(b *Backing) { b.Offset = 384 << 9 }, nil},
	{"an offset within a chunk", ublk.BufferAutoRegister, func(b *Backing) { b.Offset = 8192 }, func(p *ublk.Params) {
		p.ChunkBytes, p.Discard.Alignment = 0, 24576-8192
	}},
	{"a partition within a chunk", ublk.BufferAutoRegister, func(b *Backing) { b.queue.start, b.queue.discardAlignment = 1<<20, 3584 }, func(p *ublk.Params) {
		p.ChunkBytes, p.Discard.Alignment = 0, 3584
	}},
	{"a partition and an offset that make a chunk", ublk.BufferAutoRegister, func(b *Backing) {
		b.queue.start, b.Offset, b.queue.discardAlignment = 382<<9, 1024, 512
	}, func(p *ublk.Params) {
		p.Discard.Alignment = 512 + 24576 - 1024
	}},
	{"a chunk of odd sectors", ublk.BufferAutoRegister, func(b *Backing) { b.queue.chunkBytes = 383 << 9 }, func(p *ublk.Params) {
		p.ChunkBytes = 0
	}},
	{"no virtual boundary", ublk.BufferAutoRegister, func(b *Backing) { b.queue.virtBoundaryMask = 0 }, func(p *ublk.Params) {
		p.VirtBoundaryMask, p.Segments.MaxSegmentSize = 0, 12288
	}},
	{"segments not known", ublk.BufferAutoRegister, func(b *Backing) { b.queue.maxSegments = 0 }, func(p *ublk.Params) {
		p.Segments = ublk.SegmentParams{}
	}},
	{"memory alignment of the queue", ublk.BufferAutoRegister, func(b *Backing) { b.memAlign, b.queue.dmaAlignment = 4, 511 }, func(p *ublk.Params) {
		p.DMAAlignment = 511
	}},
	{"memory alignment not known", ublk.BufferAutoRegister, func(b *Backing) { b.memAlign = 0 }, func(p *ublk.Params) {
		p.DMAAlignment = 7
	}},
	{"optimal size of a USB bridge", ublk.BufferAutoRegister, func(b *Backing) { b.queue.optimalIOSize = 65535 << 9 }, func(p *ublk.Params) {
		p.IOOpt = 0
	}},
	{"the smallest request", ublk.BufferAutoRegister, func(b *Backing) { b.queue.maxHWBytes = 1024 }, func(p *ublk.Params) {
		p.MaxIOBytes = 4096
	}},
	{"larger requests than the driver's", ublk.BufferAutoRegister, func(b *Backing) { b.queue.maxHWBytes = 1 << 40 }, func(p *ublk.Params) {
		p.MaxIOBytes = 1 << 20
	}},
	{"discards beyond 32 bits", ublk.BufferAutoRegister, func(b *Backing) { b.queue.discardMaxBytes = 1 << 40 }, func(p *ublk.Params) {
		p.Discard.MaxBytes = (math.MaxUint32>>9 - 1) << 9
	}},
	{"zeroes beyond 32 bits", ublk.BufferAutoRegister, func(b *Backing) { b.queue.writeZeroesMaxBytes = math.MaxUint64 }, func(p *ublk.Params) {
		p.MaxWriteZeroesBytes = (math.MaxUint32>>9 - 1) << 9
	}},
	{"no discards", ublk.BufferAutoRegister, func(b *Backing) { b.queue.discardMaxBytes = 0 }, func(p *ublk.Params) {
		p.Discard = ublk.DiscardParams{}
	}},
	{"a disk that keeps its space", ublk.BufferAutoRegister, func(b *Backing) { b.keepSpace = true }, func(p *ublk.Params) {
		p.Discard, p.MaxWriteZeroesBytes = ublk.DiscardParams{}, 0
	}},
	{"no zeroes", ublk.BufferAutoRegister, func(b *Backing) { b.queue.writeZeroesMaxBytes = 0 }, func(p *ublk.Params) {
		p.MaxWriteZeroesBytes = 0
	}},
	{"a file", ublk.BufferAutoRegister, func(b *Backing) { b.IsDisk, b.punchHole, b.Offset = false, true, 1024 }, func(p *ublk.Params) {
		p.ChunkBytes = 0
		p.VolatileCache, p.FUA = true, true
		p.Discard = ublk.DiscardParams{MaxBytes: (math.MaxUint32>>9 - 1) << 9, Granularity: 4096, Alignment: 3072}
		p.MaxWriteZeroesBytes = (math.MaxUint32>>9 - 1) << 9
	}},
	{"no discards from a ring", ublk.BufferAutoRegister, func(b *Backing) { b.ringDiscard = false }, func(p *ublk.Params) {
		p.Discard = ublk.DiscardParams{}
	}},
	{"a file that keeps its space", ublk.BufferAutoRegister, func(b *Backing) { b.IsDisk, b.punchHole, b.keepSpace = false, true, true }, func(p *ublk.Params) {
		p.ChunkBytes = 0
		p.VolatileCache, p.FUA = true, true
		p.Discard, p.MaxWriteZeroesBytes = ublk.DiscardParams{}, 0
	}},
	{"a file without holes", ublk.BufferAutoRegister, func(b *Backing) { b.IsDisk = false }, func(p *ublk.Params) {
		p.ChunkBytes = 0
		p.VolatileCache, p.FUA = true, true
		p.Discard, p.MaxWriteZeroesBytes = ublk.DiscardParams{}, 0
	}},
}

func TestLimits(t *testing.T) {
	for _, tt := range oddLimitCases {
		t.Run(tt.name, func(t *testing.T) {
			b, want := oddBacking(), oddParams()
			if tt.change != nil {
				tt.change(b)
			}
			if tt.want != nil {
				tt.want(&want)
			}
			got, err := b.Params(tt.mode, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			if got != want {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
			checkParams(t, &got, 1<<20)
		})
	}
}

func withoutMemoryLimits(p *ublk.Params) {
	p.VirtBoundaryMask, p.DMAAlignment, p.Segments = 0, 0, ublk.SegmentParams{}
}

// A file system without a disk has default limits.
func TestLimitsDefault(t *testing.T) {
	b := &Backing{SectorSize: 512, Size: 1 << 20, blockSize: 4096, Direct: true, queue: defaultLimits()}
	got, err := b.Params(ublk.BufferAutoRegister, 1<<20)
	want := ublk.Params{
		Size: 1 << 20, LogicalBlockSize: 512, PhysicalBlockSize: 512, MaxIOBytes: 1 << 20,
		DMAAlignment: 511, VolatileCache: true, FUA: true,
	}
	if err != nil || got != want {
		t.Errorf("got  %+v (%v)\nwant %+v", got, err, want)
	}
	checkParams(t, &got, 1<<20)
}

func TestLimitsTooSmall(t *testing.T) {
	if _, err := oddBacking().Params(ublk.BufferCopy, 4095); !errors.Is(err, unix.EINVAL) {
		t.Errorf("error %v, want EINVAL", err)
	}
}

func TestMaxIOBytes(t *testing.T) {
	page := uint32(os.Getpagesize())
	for _, tt := range []struct {
		name  string
		mode  ublk.BufferMode
		hw    uint64
		asked uint32
		want  uint32
	}{
		{"the disk's", ublk.BufferAutoRegister, 1 << 20, 0, 1 << 20},
		{"the disk's, by command", ublk.BufferRegister, 1 << 20, 0, 1 << 20},
		{"in whole pages", ublk.BufferAutoRegister, uint64(page)*3 + 1024, 0, page * 4},
		{"the driver's", ublk.BufferAutoRegister, 1 << 40, 0, 32 << 20},
		{"copied", ublk.BufferCopy, 1 << 20, 0, 256 << 10},
		{"copied, small", ublk.BufferCopy, 128 << 10, 0, 128 << 10},
		{"less than a page", ublk.BufferCopy, 512, 0, page},
		{"asked for", ublk.BufferCopy, 1 << 20, 2 << 20, 2 << 20},
	} {
		b := &Backing{maxIOAsked: tt.asked, queue: queueLimits{maxHWBytes: tt.hw}}
		if got := b.MaxIOBytes(tt.mode); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}

// A configured size applies even if it exceeds the disk's.
func TestLargestRequest(t *testing.T) {
	for _, tt := range []struct {
		asked   uint32
		below   uint64
		allowed uint32
		want    uint32
	}{
		{0, 127 << 10, 128 << 10, 127 << 10},
		{128 << 10, 127 << 10, 128 << 10, 128 << 10},
		{128 << 10, 1 << 20, 128 << 10, 128 << 10},
		{0, 1 << 40, 32 << 20, 32 << 20},
		{0, 512, 4096, 4096},
	} {
		if got, err := (RequestSizes{tt.asked, tt.below}).Largest(tt.allowed, 512); err != nil || got != tt.want {
			t.Errorf("%+v: %d bytes, error %v", tt, got, err)
		}
	}
	if _, err := (RequestSizes{}).Largest(uint32(os.Getpagesize())-1, 512); !errors.Is(err, unix.EINVAL) {
		t.Errorf("less than a page: error %v, want EINVAL", err)
	}
}

// checkParams makes the checks of the driver (ublk_validate_params) and of the block
// layer (blk_validate_limits), and checks that no bytes get lost.
func checkParams(t testing.TB, p *ublk.Params, maxIOBytes uint32) {
	t.Helper()
	isPow2 := func(n uint64) bool { return n != 0 && n&(n-1) == 0 }
	block := uint64(p.LogicalBlockSize)
	for what, ok := range map[string]bool{
		"device size":         p.Size != 0 && p.Size%block == 0,
		"logical block size":  isPow2(uint64(p.LogicalBlockSize)) && p.LogicalBlockSize >= 512 && p.LogicalBlockSize <= 4096,
		"physical block size": isPow2(uint64(p.PhysicalBlockSize)) && p.PhysicalBlockSize >= p.LogicalBlockSize && p.PhysicalBlockSize <= 1<<28,
		"minimum I/O size":    p.IOMin == 0 || isPow2(uint64(p.IOMin)) && p.IOMin >= p.PhysicalBlockSize && p.IOMin <= 1<<28,
		"optimal I/O size":    p.IOOpt == 0 || isPow2(uint64(p.IOOpt)) && p.IOOpt >= p.PhysicalBlockSize && p.IOOpt <= 1<<28,
		"largest request":     p.MaxIOBytes >= 4096 && p.MaxIOBytes <= maxIOBytes && uint64(p.MaxIOBytes)%block == 0,
		"chunk":               p.ChunkBytes%block == 0,
		"DMA alignment":       isPow2(uint64(p.DMAAlignment)+1) && p.DMAAlignment < 4096,
		"segments":            p.Segments.MaxSegments == 0 || p.Segments.MaxSegmentSize >= 4096 && isPow2(p.Segments.BoundaryMask+1) && p.Segments.BoundaryMask >= 4095,
		"virtual boundary":    p.VirtBoundaryMask == 0 || p.Segments.MaxSegments == 0 || p.Segments.MaxSegmentSize == math.MaxUint32,
		"discard":             p.Discard.MaxBytes == 0 || p.Discard.Granularity >= p.LogicalBlockSize && p.Discard.Alignment < p.Discard.Granularity,
		"discard size":        p.Discard.MaxBytes <= math.MaxUint32 && p.Discard.MaxBytes%block == 0,
		"write-zeroes size":   p.MaxWriteZeroesBytes <= math.MaxUint32 && p.MaxWriteZeroesBytes%block == 0,
		"FUA":                 !p.FUA || p.VolatileCache,
		"read-only":           !p.ReadOnly || p.Discard.MaxBytes == 0 && p.MaxWriteZeroesBytes == 0,
	} {
		if !ok {
			t.Errorf("%s: the kernel refuses %+v", what, *p)
		}
	}
}

// The kernel accepts the parameters for any disk.
func FuzzLimits(f *testing.F) {
	f.Add(uint32(8192), uint32(196608), uint64(127<<10), uint64(384<<9), uint32(24576), uint64(1<<40), uint32(7), uint32(512), uint8(0))
	f.Add(uint32(0), uint32(0), uint64(0), uint64(0), uint32(0), uint64(0), uint32(0), uint32(0), uint8(255))
	f.Fuzz(func(t *testing.T, pbs, opt uint32, hw, chunk uint64, granularity uint32, discard uint64, dma, segment uint32, bits uint8) {
		b := oddBacking()
		b.SectorSize = 512 << (bits & 3)
		b.IsDisk, b.Direct, b.ReadOnly, b.punchHole = bits&4 != 0, bits&8 != 0, bits&16 != 0, bits&32 != 0
		b.Offset = uint64(b.SectorSize) * (chunk & 0xff)
		q := &b.queue
		q.physicalBlockSize = 512 << (pbs & 7)
		q.minimumIOSize, q.optimalIOSize = opt^pbs, opt
		q.maxHWBytes, q.chunkBytes = hw, (chunk&(1<<32-1))<<9
		q.discardGranularity, q.discardMaxBytes, q.writeZeroesMaxBytes = granularity, discard, discard^hw
		q.dmaAlignment, q.maxSegmentSize, q.maxSegments = 1<<(dma&15)-1, segment, segment^dma
		q.virtBoundaryMask = uint64(bits&64) << 6
		if q.virtBoundaryMask != 0 {
			q.virtBoundaryMask--
		}
		mode := ublk.BufferCopy
		if bits&128 != 0 {
			mode = ublk.BufferAutoRegister
		}
		limit := b.MaxIOBytes(mode)
		p, err := b.Params(mode, limit)
		if err != nil {
			t.Fatal(err)
		}
		checkParams(t, &p, limit)
	})
}
