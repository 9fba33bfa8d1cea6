package loop

import (
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/statefile"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// A state survives being written and read, except for the key, which is never written.
func TestStateForgetsNoField(t *testing.T) {
	var want state
	fillFields(t, reflect.ValueOf(&want).Elem())
	want.Config.Key = nil
	want.Status.Files = statusFiles(want.Files) // which the state does not have twice
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
