package systemd

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

// Scope describes a transient scope: a unit for processes that systemd has not started.
type Scope struct {
	Name        string // with its suffix, .scope
	Description string
	PIDs        []int
	// Device is the path of the block device that the processes serve. systemd ends them
	// after everything that is mounted from the device.
	Device string
	// Paths are the files that the processes need. systemd ends them before it unmounts the
	// files.
	Paths []string
}

// stopTimeout is how long the processes have to end before systemd kills them, as in ublk-loop.service. A
// server writes what was written to its device to the file first, which takes long on a slow disk.
const stopTimeout = 10 * time.Minute

// pollPeriod is the time between two looks at the processes that systemd moves. The kernel reports
// no event when a process changes its cgroup.
const pollPeriod = time.Millisecond

// Start moves the processes into the new scope, and returns when they are there.
//
// The job of the scope ends later: systemd moves the processes first, and then tells all
// connections about the units. That takes as long again.
func (m *Manager) Start(ctx context.Context, s *Scope) error {
	signals := make(chan *dbus.Signal, 16)
	m.conn.Signal(signals)
	manager := m.conn.Object("org.freedesktop.systemd1", "/org/freedesktop/systemd1")
	var job dbus.ObjectPath
	err := s.withProperties(func(properties []property) error {
		// The mode "fail" never ends other jobs, such as those of a shutdown.
		return manager.CallWithContext(ctx, "org.freedesktop.systemd1.Manager.StartTransientUnit", 0,
			s.Name, "fail", properties, []auxiliary{}).Store(&job)
	})
	if err != nil {
		return fmt.Errorf("start %s: %w", s.Name, err)
	}
	ticker := time.NewTicker(pollPeriod)
	defer ticker.Stop()
	if err := s.waitFor(ctx, job, signals, ticker.C); err != nil {
		return fmt.Errorf("start %s: %w", s.Name, err)
	}
	return nil
}

// withProperties calls start with the properties of the scope. systemd refuses those that it does not know, and start is
// then called without those of later versions.
func (s *Scope) withProperties(start func([]property) error) error {
	err := start(append(s.properties(), laterProperties()...))
	var refused dbus.Error
	if errors.As(err, &refused) && refused.Name == "org.freedesktop.DBus.Error.PropertyReadOnly" {
		err = start(s.properties())
	}
	return err
}

// waitFor returns nil when the processes are in the scope, or an error when the job has ended
// without that. It looks at the processes at each look.
func (s *Scope) waitFor(ctx context.Context, job dbus.ObjectPath, signals <-chan *dbus.Signal, look <-chan time.Time) error {
	for {
		if s.hasProcesses() {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-look:
		case signal, ok := <-signals:
			switch result := jobResult(signal, job); {
			case !ok:
				return fmt.Errorf("the connection has ended: %w", unix.ECONNRESET)
			case result != "" && !s.hasProcesses():
				return fmt.Errorf("its job is %s, but processes %d are not in it: %w", result, s.PIDs, unix.ESRCH)
			}
		}
	}
}

// jobResult returns the result of the job if the signal says that it has ended, or "".
func jobResult(signal *dbus.Signal, job dbus.ObjectPath) string {
	var id uint32
	var ended dbus.ObjectPath
	var unit, result string
	if signal == nil || signal.Name != "org.freedesktop.systemd1.Manager.JobRemoved" ||
		dbus.Store(signal.Body, &id, &ended, &unit, &result) != nil || ended != job {
		return ""
	}
	return result
}

// hasProcesses reports whether the processes are in the scope's cgroup, in any hierarchy.
func (s *Scope) hasProcesses() bool {
	for _, pid := range s.PIDs {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
		if err != nil || !isIn(string(text), s.Name) {
			return false
		}
	}
	return true
}

// isIn reports whether a file /proc/PID/cgroup names the cgroup of a unit.
func isIn(cgroups, unit string) bool {
	for line := range strings.Lines(cgroups) {
		if strings.HasSuffix(line, "/"+unit+"\n") {
			return true
		}
	}
	return false
}

// property is a property of a unit, and auxiliary a further unit, as D-Bus passes them.
type (
	property struct {
		Name  string
		Value dbus.Variant
	}
	auxiliary struct {
		Name       string
		Properties []property
	}
)

// properties returns what systemd.unit(5), systemd.scope(5) and systemd.kill(5) describe.
func (s *Scope) properties() []property {
	// Mounts of a block device are after its blockdev target, and so end before it
	// (systemd.special(7)). The default dependencies would end the processes beside them.
	target := "blockdev@" + escapePath(s.Device) + ".target"
	pids := []uint32{}
	for _, pid := range s.PIDs {
		pids = append(pids, uint32(pid))
	}
	values := map[string]any{
		"Description":         s.Description,
		"Documentation":       []string{"man:ublk-loop(8)"},
		"PIDs":                pids,
		"KillMode":            "control-group",
		"CollectMode":         "inactive-or-failed", // a name is free again when its processes have ended
		"DefaultDependencies": false,
		"Wants":               []string{target},
		"Before":              []string{target, "shutdown.target"},
		"Conflicts":           []string{"shutdown.target"},
		"TimeoutStopUSec":     uint64(stopTimeout.Microseconds()),
		"TasksMax":            uint64(math.MaxUint64), // a server that cannot start a thread crashes
	}
	if len(s.Paths) > 0 {
		values["RequiresMountsFor"] = s.Paths
	}
	var properties []property
	for name, value := range values {
		properties = append(properties, property{Name: name, Value: dbus.MakeVariant(value)})
	}
	return properties
}

// laterProperties returns properties of systemd 248 and later (systemd.resource-control(5)).
func laterProperties() []property {
	// The page cache of the server's file counts as the server's. systemd-oomd would take it for a
	// program that uses much memory.
	return []property{{"ManagedOOMPreference", dbus.MakeVariant("omit")}}
}

// escapePath returns a path as a part of a unit's name, as systemd-escape --path does:
// without the slash at its start, a dash for each slash, and \xNN for other bytes.
func escapePath(path string) string {
	var b strings.Builder
	for i, c := range []byte(strings.Trim(path, "/")) {
		switch {
		case c == '/':
			b.WriteByte('-')
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == ':', c == '_', c == '.' && i > 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}
	return b.String()
}
