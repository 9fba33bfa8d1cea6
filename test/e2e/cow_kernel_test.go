package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// A store is made, described and merged. Its base is attached for writing only after that, or
// after thaw. What a device has is left alone.
func TestKernelCowFiles(t *testing.T) {
	b := kernelBed(t, ublktest.OldestKernel)
	base := b.image(4<<20 + 512)
	store := filepath.Join(filepath.Dir(base), "changes.cow")
	if out := b.ok("cow", "create", store, "--origin", base, "--chunk=4K"); out != "" {
		t.Errorf("create prints %q", out)
	}
	var info struct {
		UUID, Origin string
		Chunks, Size uint64
		Needed       []string `json:"needed_by"`
	}
	b.decode(b.ok("cow", "info", "--json", store), &info)
	if info.Origin != base || len(info.UUID) != 36 || info.Chunks != 0 {
		t.Errorf("%+v", info)
	}
	b.run("add", base).fails(t, 1, "open "+base+": base of a store: operation not permitted", "hint: attach it with --read-only; cow thaw")
	b.run("add", "--shared", base).fails(t, 1, "base of a store")
	table := filepath.Join(t.TempDir(), "table")
	if err := os.WriteFile(table, []byte("0 8192 linear "+base+" 0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.run("add", "--table", table).fails(t, 1, "open "+base+": base of a store: operation not permitted")

	device := b.add("--read-only", base)
	b.run("cow", "merge", store).fails(t, 1, "already in use by another reader or writer")
	b.run("cow", "thaw", base).fails(t, 1, "already in use by another reader or writer")
	second := filepath.Join(filepath.Dir(base), "second.cow")
	b.ok("cow", "create", second, "--origin", base)
	b.del(device.Device)
	b.run("cow", "merge", store).fails(t, 1, "open "+base+": base of 2 stores: operation not permitted", "hint: ublk-loop cow thaw allows")

	thawed := strings.Fields(b.ok("cow", "thaw", base))
	if len(thawed) != 2 || thawed[0] != info.UUID {
		t.Errorf("thaw prints %q, the store is %s", thawed, info.UUID)
	}
	b.mergesThawed(base, store, table)
}

// mergesThawed merges a store into its base that was thawed, and uses both again.
func (b *bed) mergesThawed(base, store, table string) {
	b.Helper()
	device := b.add(base)
	b.run("cow", "create", store+"2", "--origin", base).fails(b, 1, "already in use by a writer")
	b.del(device.Device)
	b.run("cow", "merge", store).fails(b, 1, base+" does not say that it is the base of "+store, "hint: if it is, name it with --base")
	if out := b.ok("cow", "merge", store, "--base", base); out != "0 chunks merged into "+base+"\n" {
		b.Errorf("merge prints %q", out)
	}

	device = b.add(store) // as a plain file
	b.run("cow", "merge", store, "--base", base).fails(b, 1, "open "+store+": already in use")
	b.run("cow", "diff", store).fails(b, 1, "open "+store+": already in use")
	b.ok("cow", "info", store)
	b.del(device.Device)
	if out := b.ok("cow", "diff", store); !strings.Contains(out, `"changed": []`) {
		b.Errorf("diff prints %s", out)
	}

	// A device that uses the store records it in its base again.
	if err := os.WriteFile(table, []byte("0 8193 snapshot "+base+" "+store+" P 8\n"), 0o600); err != nil {
		b.Fatal(err)
	}
	device = b.add("--table", table)
	b.run("cow", "merge", store).fails(b, 1, "already in use")
	b.del(device.Device)
	b.run("add", base).fails(b, 1, "open "+base+": base of a store: operation not permitted")
	b.ok("cow", "merge", store)
	b.del(b.add(base).Device)
}
