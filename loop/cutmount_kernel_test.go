package loop

import (
	"fmt"
	"testing"
)

// cutMount is a mounted file system on a disk of 96 MiB whose power can be cut.
type cutMount struct {
	path, table string
	dir         string // where it is mounted
}

// newCutMount makes and mounts a disk. It must be unmounted at the end of the test.
func newCutMount(t *testing.T) *cutMount {
	t.Helper()
	d := &cutMount{table: fmt.Sprintf("0 196608 linear %s 0", nullDisk(t, 96, nil)), dir: t.TempDir()}
	d.path = mappedDisk(t, d.table)
	run(t, "mkfs.ext4", "-q", "-F", d.path)
	run(t, "mount", d.path, d.dir)
	return d
}

// cut makes all further requests of the disk fail.
func (d *cutMount) cut(t *testing.T) { reloadMapped(t, d.path, "0 196608 error") }

// restart mounts the disk with what was on it when the power was cut.
func (d *cutMount) restart(t *testing.T) {
	run(t, "umount", d.dir)
	reloadMapped(t, d.path, d.table)
	run(t, "mount", d.path, d.dir)
}
