package ublk_test

import (
	"errors"
	"fmt"
	"math"
	"os"
	"reflect"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/uapi"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

const (
	offersCopy     = uapi.UBLK_F_CMD_IOCTL_ENCODE
	offersRegister = offersCopy | uapi.UBLK_F_SUPPORT_ZERO_COPY
	offersAuto     = offersRegister | uapi.UBLK_F_AUTO_BUF_REG
)

// noMode is not a mode of a device.
const noMode ublk.BufferMode = -1

func id(n uint32) *uint32 { return &n }

func TestAddTakesTheBestModeThatTheDriverGives(t *testing.T) {
	for _, tt := range []struct {
		offers ublk.Features
		wish   ublk.BufferMode
		want   ublk.BufferMode // noMode: ErrNotSupported
	}{
		{offersCopy, ublk.BufferFastest, ublk.BufferCopy},
		{offersRegister, ublk.BufferFastest, ublk.BufferRegister},
		{offersAuto, ublk.BufferFastest, ublk.BufferAutoRegister},
		{offersAuto, 0, ublk.BufferCopy}, // the zero value of Options.Mode
		{offersAuto, ublk.BufferCopy, ublk.BufferCopy},
		{offersAuto, ublk.BufferRegister, ublk.BufferRegister},
		{offersRegister, ublk.BufferAutoRegister, noMode},
		{offersCopy, ublk.BufferRegister, noMode},
	} {
		t.Run(fmt.Sprintf("%v of %v", tt.wish, tt.offers), func(t *testing.T) {
			fake := &ublktest.Fake{Offers: tt.offers}
			dev, err := ublk.NewControl(fake).Add(ublk.Options{Mode: tt.wish})
			if tt.want == noMode {
				if !errors.Is(err, ublk.ErrNotSupported) {
					t.Fatalf("error %v, want ErrNotSupported", err)
				}
				if left := fake.IDs(); len(left) > 0 {
					t.Fatalf("devices %v are left", left)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if dev.Mode() != tt.want {
				t.Fatalf("mode %v, want %v", dev.Mode(), tt.want)
			}
			if n := len(fake.IDs()); n != 1 {
				t.Fatalf("%d devices, want 1", n)
			}
		})
	}
}

func TestAddDefaultsAndReadsBackWhatTheDriverMade(t *testing.T) {
	for _, tt := range []struct {
		name  string
		opts  ublk.Options
		depth uint16
		maxIO uint32
	}{
		{"nothing asked for", ublk.Options{}, 64, 256 << 10},
		{"zero copy", ublk.Options{Mode: ublk.BufferAutoRegister}, 128, 1 << 20},
		{"copy", ublk.Options{Mode: ublk.BufferCopy}, 64, 256 << 10},
		{"given", ublk.Options{Mode: ublk.BufferCopy, Depth: 7, MaxIOBytes: 12345}, 7, 12288},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.opts.Queues = 4096
			tt.opts.Tag = 42
			dev, err := ublk.NewControl(&ublktest.Fake{Offers: offersAuto}).Add(tt.opts)
			if err != nil {
				t.Fatal(err)
			}
			info := dev.Info()
			if info.Depth != tt.depth || info.MaxIOBytes != tt.maxIO || info.Queues != 4 || info.Tag != 42 {
				t.Fatalf("got %+v, want depth %d, max I/O %d, queues 4, tag 42", info, tt.depth, tt.maxIO)
			}
		})
	}
}

func TestAddRefusesBeforeAnyCommand(t *testing.T) {
	for _, opts := range []ublk.Options{
		{Queues: -1},
		{ID: new(uint32(1 << 20))},
		{ID: new(uint32(math.MaxUint32))}, // the driver's number for any device
		{Queues: 4097},
		{Depth: -1},
		{Depth: 4097},
		{MaxIOBytes: 4095},
		{MaxIOBytes: 32<<20 + 1},
	} {
		fake := &ublktest.Fake{Offers: offersAuto}
		if _, err := ublk.NewControl(fake).Add(opts); !errors.Is(err, unix.EINVAL) {
			t.Errorf("%+v: error %v, want EINVAL", opts, err)
		}
		if n := len(fake.Commands()); n != 0 {
			t.Errorf("%+v: %d commands were sent", opts, n)
		}
	}
}

func TestIDs(t *testing.T) {
	ctl := ublk.NewControl(&ublktest.Fake{Offers: offersAuto})
	for _, want := range []uint32{7, 0, 1} {
		opts := ublk.Options{}
		if want == 7 {
			opts.ID = id(7)
		}
		dev, err := ctl.Add(opts)
		if err != nil {
			t.Fatal(err)
		}
		if got := dev.Info().ID; got != want {
			t.Fatalf("id %d, want %d", got, want)
		}
	}
	if _, err := ctl.Add(ublk.Options{ID: id(7)}); !errors.Is(err, unix.EEXIST) {
		t.Fatalf("error %v, want EEXIST", err)
	}
}

func TestCloseDeletesOnceAndIsSafeAgain(t *testing.T) {
	fake := &ublktest.Fake{Offers: offersAuto}
	dev, err := ublk.NewControl(fake).Add(ublk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := dev.Close(); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	for _, cmd := range fake.Commands() {
		if cmd.Op == uapi.UBLK_U_CMD_DEL_DEV {
			n++
		}
	}
	if n != 1 || len(fake.IDs()) != 0 {
		t.Fatalf("%d deletions and devices %v, want 1 and none", n, fake.IDs())
	}
	if err := dev.Start(ublk.HandlerFunc(func(*ublk.Request) {})); err == nil {
		t.Fatal("a closed device was started")
	}
}

func TestErrorsKeepTheirErrno(t *testing.T) {
	fake := &ublktest.Fake{Offers: offersAuto, Fail: map[uint32]error{uapi.UBLK_U_CMD_ADD_DEV: unix.EPERM}}
	ctl := ublk.NewControl(fake)
	if _, err := ctl.Add(ublk.Options{}); !errors.Is(err, unix.EPERM) {
		t.Errorf("add: error %v, want EPERM", err)
	}
	if _, err := ctl.Info(3); !errors.Is(err, unix.ENODEV) {
		t.Errorf("info: error %v, want ENODEV", err)
	}
	for _, unknown := range []unix.Errno{unix.EOPNOTSUPP, 524} {
		dev, err := ublk.NewControl(&ublktest.Fake{Offers: offersAuto}).Add(ublk.Options{})
		if err != nil {
			t.Fatal(err)
		}
		fake := &ublktest.Fake{Fail: map[uint32]error{uapi.UBLK_U_CMD_TRY_STOP_DEV: unknown}}
		if err := ublk.NewControl(fake).TryStop(dev.Info().ID); !errors.Is(err, ublk.ErrNotSupported) {
			t.Errorf("try stop with %d: error %v, want ErrNotSupported", unknown, err)
		}
	}
}

func TestHungCommandEndsTheControl(t *testing.T) {
	fake := &ublktest.Fake{Fail: map[uint32]error{uapi.UBLK_U_CMD_GET_DEV_INFO: ublk.ErrControlHung}}
	ctl := ublk.NewControl(fake)
	for range 2 {
		if _, err := ctl.Info(0); !errors.Is(err, ublk.ErrControlHung) {
			t.Fatalf("error %v, want ErrControlHung", err)
		}
	}
	if n := len(fake.Commands()); n != 1 {
		t.Fatalf("%d commands were sent, want 1", n)
	}
}

func TestControlClose(t *testing.T) {
	fake := &ublktest.Fake{}
	ctl := ublk.NewControl(fake)
	for range 2 {
		if err := ctl.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ctl.Info(0); !errors.Is(err, ublk.ErrClosed) || !fake.Closed() {
		t.Fatalf("error %v, want ErrClosed; transport closed: %v", err, fake.Closed())
	}
}

func TestFeatures(t *testing.T) {
	f, err := ublk.NewControl(&ublktest.Fake{Offers: offersAuto}).Features()
	if err != nil || f != offersAuto {
		t.Fatalf("features %v, error %v", f, err)
	}
	if got, want := f.String(), "SUPPORT_ZERO_COPY CMD_IOCTL_ENCODE AUTO_BUF_REG"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := ublk.Features(1<<40).String(), "bit40"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if _, err := ublk.NewControl(&ublktest.Fake{}).Features(); !errors.Is(err, ublk.ErrNotSupported) {
		t.Errorf("a driver that can't say: error %v, want ErrNotSupported", err)
	}
}

func TestParamsRoundTrip(t *testing.T) {
	ctl := ublk.NewControl(&ublktest.Fake{Offers: offersAuto})
	dev, err := ctl.Add(ublk.Options{MaxIOBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	want := ublk.Params{
		Size: 40960, LogicalBlockSize: 4096, PhysicalBlockSize: 8192, IOMin: 8192, IOOpt: 65536,
		MaxIOBytes: 1 << 19, ChunkBytes: 128 << 10, VirtBoundaryMask: 4095, DMAAlignment: 511,
		Segments: ublk.SegmentParams{MaxSegments: 33, MaxSegmentSize: 65536, BoundaryMask: 0xffffffff},
		ReadOnly: true, Rotational: true, VolatileCache: true, FUA: true,
		Discard:             ublk.DiscardParams{MaxBytes: 32768, Granularity: 8192, Alignment: 4096},
		MaxWriteZeroesBytes: 65536,
	}
	readOnly, rotational, volatile := want, want, want // only one attribute each
	readOnly.Rotational, readOnly.VolatileCache, readOnly.FUA = false, false, false
	rotational.ReadOnly, rotational.VolatileCache, rotational.FUA = false, false, false
	volatile.ReadOnly, volatile.Rotational, volatile.FUA = false, false, false
	for _, want := range []ublk.Params{want, readOnly, rotational, volatile} {
		if err := dev.SetParams(want); err != nil {
			t.Fatal(err)
		}
		got, err := ctl.Params(dev.Info().ID)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("got  %+v\nwant %+v", got, want)
		}
	}
}

func TestSetParamsRefusesWhatMakesNoSense(t *testing.T) {
	good := ublk.Params{Size: 8192}
	for name, change := range map[string]func(*ublk.Params){
		"no bytes":              func(p *ublk.Params) { p.Size = 0 },
		"block below a sector":  func(p *ublk.Params) { p.LogicalBlockSize = 256 },
		"block no power of two": func(p *ublk.Params) { p.LogicalBlockSize = 1536 },
		"block above a page": func(p *ublk.Params) {
			p.LogicalBlockSize = 2 * uint32(os.Getpagesize())
			p.Size, p.PhysicalBlockSize = uint64(p.LogicalBlockSize), p.LogicalBlockSize
		},
		"not a multiple":         func(p *ublk.Params) { p.LogicalBlockSize = 4096; p.Size = 17 << 9 },
		"physical below logical": func(p *ublk.Params) { p.PhysicalBlockSize = 1 << 31; p.PhysicalBlockSize += 512 },
		"odd io_min":             func(p *ublk.Params) { p.IOMin = 3000 },
		"odd io_opt":             func(p *ublk.Params) { p.IOOpt = 3000 },
		"huge physical block":    func(p *ublk.Params) { p.PhysicalBlockSize = 512 << 20 },
		"huge io_min":            func(p *ublk.Params) { p.IOMin = 512 << 20 },
		"huge io_opt":            func(p *ublk.Params) { p.IOOpt = 512 << 20 },
		"max below a page":       func(p *ublk.Params) { p.MaxIOBytes = uint32(os.Getpagesize()) - 512 },
		"max above the buffers":  func(p *ublk.Params) { p.MaxIOBytes = 2049 << 9 },
		"max of odd bytes":       func(p *ublk.Params) { p.MaxIOBytes = 4097 },
		"size of odd bytes":      func(p *ublk.Params) { p.Size = 8191 },
		"odd chunk":              func(p *ublk.Params) { p.ChunkBytes = 511 },
		"chunk within a block":   func(p *ublk.Params) { p.LogicalBlockSize = 4096; p.ChunkBytes = 512 },
		"huge chunk":             func(p *ublk.Params) { p.ChunkBytes = 1 << 41 },
		"odd discards":           func(p *ublk.Params) { p.Discard.MaxBytes = 1000 },
		"huge discards":          func(p *ublk.Params) { p.Discard.MaxBytes = 1 << 41 },
		"odd zeroes":             func(p *ublk.Params) { p.MaxWriteZeroesBytes = 1000 },
		"huge zeroes":            func(p *ublk.Params) { p.MaxWriteZeroesBytes = 1 << 41 },
		"FUA without a cache":    func(p *ublk.Params) { p.FUA = true },
		"odd DMA mask":           func(p *ublk.Params) { p.DMAAlignment = 4 },
		"DMA mask of a page":     func(p *ublk.Params) { p.DMAAlignment = 2*uint32(os.Getpagesize()) - 1 },
		"small segments":         func(p *ublk.Params) { p.Segments = ublk.SegmentParams{MaxSegments: 1, MaxSegmentSize: 512} },
		"odd boundary": func(p *ublk.Params) {
			p.Segments = ublk.SegmentParams{MaxSegments: 1, MaxSegmentSize: 4096, BoundaryMask: 5000}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dev, err := ublk.NewControl(&ublktest.Fake{Offers: offersAuto}).Add(ublk.Options{})
			if err != nil {
				t.Fatal(err)
			}
			p := good
			change(&p)
			if err := dev.SetParams(p); !errors.Is(err, unix.EINVAL) {
				t.Fatalf("error %v, want EINVAL", err)
			}
			if err := dev.SetParams(good); err != nil {
				t.Fatalf("the good ones: %v", err)
			}
		})
	}
}

func TestResultIsTheTrueErrno(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want int32
	}{
		{unix.ENOSPC, -28},
		{fmt.Errorf("write: %w", unix.EIO), -5},
		{errors.New("something else"), -5},
		{unix.Errno(0), -5},
		{unix.Errno(524), -5},
		{unix.Errno(0), -5}, // an error is never a success
	} {
		if got := ublk.Result(tt.err); got != tt.want {
			t.Errorf("%v: %d, want %d", tt.err, got, tt.want)
		}
	}
	if n := testing.AllocsPerRun(100, func() { ublk.Result(unix.EROFS) }); n != 0 {
		t.Errorf("the result of a bare errno takes %v allocations", n)
	}
}
