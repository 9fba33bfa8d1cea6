package backing

import (
	"os"
	"path/filepath"
	"testing"
)

func TestChecksumDisk(t *testing.T) {
	leavesNoFiles(t)
	dir := t.TempDir()
	for name, text := range map[string]string{
		"devices/plain/queue/stable_writes": "0", "devices/plain/integrity/format": "none",
		"devices/plain/plain1/partition":  "1",
		"devices/nop/queue/stable_writes": "0", "devices/nop/integrity/format": "nop",
		"devices/old/queue/rotational":       "0",
		"devices/stable/queue/stable_writes": "1", "devices/stable/stable1/partition": "1",
		"devices/dif/queue/stable_writes": "0", "devices/dif/integrity/format": "T10-DIF-TYPE1-CRC",
		"devices/dif/dif1/partition":         "1",
		"devices/mapped/queue/stable_writes": "0", "devices/raid/queue/stable_writes": "0",
		"devices/linear/queue/stable_writes": "0", "devices/linear/dm/uuid": "LVM-CRYPT-INTEGRITY-",
		"devices/integrity/queue/stable_writes": "0", "devices/integrity/dm/uuid": "CRYPT-INTEGRITY-name",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{
		"mapped/slaves/raid": "../../raid", "raid/slaves/plain": "../../plain", "raid/slaves/dif1": "../../dif/dif1",
		"linear/slaves/plain1": "../../plain/plain1",
	} {
		path := filepath.Join(dir, "devices", link)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for disk, want := range map[string]string{
		"plain": "", "plain/plain1": "", "nop": "", "old": "", "linear": "",
		"stable": "stable", "stable/stable1": "stable", "dif": "dif", "dif/dif1": "dif", "mapped": "dif",
		"integrity": "integrity",
	} {
		if got, err := checksumDisk(root, "devices/"+disk); err != nil || got != want {
			t.Errorf("%s: %q, error %v, want %q", disk, got, err, want)
		}
	}
}
