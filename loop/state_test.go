package loop

import (
	"encoding/json"
	"errors"
	"math"
	"os"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/filelock"
	"github.com/ublk-loop/ublk-loop/loop/internal/statefile"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// A state survives being written and read, except for the key, which is never written.
func TestStateForgetsNoField(t *testing.T) {
	var want state
	fillFields(t, reflect.ValueOf(&want).Elem())
	want.Config.Key = nil
	want.Status.Tag = 0                                                           // which the driver keeps
	want.Status.Files, want.Status.Ref = statusFiles(want.Files), want.Config.Ref // which the state does not have twice
	data, err := json.Marshal(want.record())
	if err != nil {
		t.Fatal(err)
	}
	var r statefile.Record
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	if got := stateFrom(&r); !reflect.DeepEqual(got, &want) {
		t.Errorf("%+v, %+v\nbecomes\n%+v, %+v", want, want.Status, got, got.Status)
	}
}

// fillFields sets each field of a struct to a value other than its zero value.
func fillFields(t *testing.T, v reflect.Value) {
	t.Helper()
	for i := range v.NumField() {
		switch f := v.Field(i); f.Kind() {
		case reflect.Bool:
			f.SetBool(true)
		case reflect.String:
			f.SetString(v.Type().Field(i).Name)
		case reflect.Int, reflect.Int64:
			f.SetInt(int64(i + 1))
		case reflect.Uint32, reflect.Uint64:
			f.SetUint(uint64(i + 1))
		case reflect.Struct:
			fillFields(t, f)
		case reflect.Slice:
			f.Set(reflect.MakeSlice(f.Type(), 1, 1))
			fillFields(t, f.Index(0))
		case reflect.Pointer:
			f.Set(reflect.New(f.Type().Elem()))
			if f.Elem().Kind() == reflect.Struct && f.Type().Elem().Name() == "Status" {
				fillFields(t, f.Elem())
			}
		default:
			t.Fatalf("%s: no value for a %s", v.Type().Field(i).Name, f.Kind())
		}
	}
}

// A device that is taken over has direct I/O if and only if it had it before, whatever it was
// added with.
func TestDirectIOOfTakenOverDevice(t *testing.T) {
	for _, added := range []Switch{"", SwitchAuto, SwitchOn, SwitchOff} {
		for direct, want := range map[bool]Switch{true: SwitchOn, false: SwitchOff} {
			saved := &state{Config: Config{DirectIO: added}, Status: &Status{DirectIO: direct}}
			cfg := saved.configFor(&ublk.Params{Size: 1 << 20, LogicalBlockSize: 512})
			if cfg.DirectIO != want || cfg.SizeLimit != 1<<20 || cfg.SectorSize != 512 {
				t.Errorf("added with %q, direct %v: %+v", added, direct, cfg)
			}
		}
	}
}

// A state that cannot be read is not the same as none.
func TestUnreadableState(t *testing.T) {
	needState(t)
	const id = unusedID - 1
	if saved, err := readState(id); saved != nil || err != nil {
		t.Fatalf("without a state: %+v, error %v", saved, err)
	}
	if err := os.MkdirAll(statefile.Path(id), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(statefile.Path(id)) })
	if saved, err := readState(id); saved != nil || !errors.Is(err, unix.EISDIR) {
		t.Errorf("%+v, error %v, want EISDIR", saved, err)
	}
}

// This version reads the file of an earlier version with the same meaning.
func TestStateOfEarlierVersion(t *testing.T) {
	data, err := os.ReadFile("testdata/state-2026-11.json")
	if err != nil {
		t.Fatal(err)
	}
	var r statefile.Record
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	five := uint32(5)
	encrypted := TransferConfig{
		Name: "aes-xts-plain64", KeyBytes: 64, SectorSize: 4096, IVOffset: 8, IVLargeSectors: true, AllowDiscards: true,
		LUKS: 2, UUID: "3f1c", LUKSOffset: 1 << 20,
	}
	want := &state{
		StartTime: 4242, FileBirth: 1700000000123456789, KeyCheck: "01234567", Recovering: true, ManyDevices: true,
		Config: Config{
			ID: &five, ReadOnly: true, Offset: 16777216, SizeLimit: 1 << 30, SectorSize: 4096, DirectIO: SwitchOn, ZeroCopy: SwitchOff,
			PartScan: true, Queues: 2, Depth: 64, MaxIOBytes: 65536, Transfer: encrypted, OnCrash: CrashReissue, Shared: true, Autoclear: true,
		},
		Status: &Status{
			ID: 5, Device: "/dev/ublkb5", MajMin: "259:5", State: "live", PID: 4711, File: "/srv/disk image", FileDevice: "8:1", FileInode: 12,
			FileIsDisk: true, Size: 1 << 30, Offset: 16777216, SizeLimit: 1 << 30, ReadOnly: true, DirectIO: true, BufferMode: "copy",
			PartScan: true, Autoclear: true, OnCrash: "reissue", Queues: 2, Depth: 64, Transfer: encrypted,
			Limits: Limits{
				LogicalBlockSize: 4096, PhysicalBlockSize: 4096, MinimumIOSize: 4096, OptimalIOSize: 65536, MaxIOBytes: 65536, ChunkBytes: 131072,
				VirtBoundaryMask: 4095, DMAAlignment: 511, MaxSegments: 128, MaxSegmentSize: 65536, DiscardGranularity: 4096, DiscardAlignment: 512,
				DiscardMaxBytes: 1 << 30, WriteZeroesMaxBytes: 1 << 29, Rotational: true, WriteCache: true, FUA: true,
			},
		},
	}
	got := stateFrom(&r)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("it says\n%+v, %+v\nnot\n%+v, %+v", got, got.Status, want, want.Status)
	}
	// The earlier version can read the files of this version, because the format is
	// unchanged.
	again := got.record()
	again.Version = 1
	written, err := json.Marshal(again)
	if err != nil || string(written)+"\n" != string(data) {
		t.Errorf("written again it is\n%s\nnot\n%s", written, data)
	}
}

// A reference fits in a state file and in the name of a link.
func TestCheckRef(t *testing.T) {
	for ref, ok := range map[string]bool{
		"": true, "a b/ü": true, strings.Repeat("x", MaxRef): true,
		strings.Repeat("x", MaxRef+1): false, "a\nb": false, "\xff": false, "\x00": false,
	} {
		if err := (&Config{Ref: ref}).checkRef(); (err == nil) != ok || err != nil && !errors.Is(err, unix.EINVAL) {
			t.Errorf("%q: error %v", ref, err)
		}
	}
}

// A device locks its own part, from its LUKS header on, and what it has grown into.
func TestLockRange(t *testing.T) {
	for _, tt := range []struct {
		cfg  Config
		size uint64
		want filelock.Range
	}{
		{Config{}, 512, filelock.Range{}},
		{Config{Offset: 512}, 512, filelock.Range{Offset: 512}},
		{Config{Offset: 512, SizeLimit: 1024}, 512, filelock.Range{Offset: 512, Length: 1024}},
		{Config{Offset: 512, SizeLimit: 1024}, 4096, filelock.Range{Offset: 512, Length: 4096}},
		{Config{Offset: 512, SizeLimit: math.MaxUint64 - 511}, 512, filelock.Range{Offset: 512}},
		{Config{Offset: 8192, SizeLimit: 1024, Transfer: TransferConfig{LUKS: 2, LUKSOffset: 4096}}, 512, filelock.Range{Offset: 4096, Length: 5120}},
		{Config{Offset: 8192, Transfer: TransferConfig{LUKS: 2}}, 512, filelock.Range{}},
	} {
		if got := (&state{Config: tt.cfg}).lockRange(tt.size); got != tt.want {
			t.Errorf("%+v of %d bytes locks %+v, want %+v", tt.cfg, tt.size, got, tt.want)
		}
	}
}
