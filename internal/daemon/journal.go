package daemon

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"go.uber.org/zap/zapcore"

	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/internal/systemd"
)

// journalCore is a log in systemd's journal. An entry has the fields of the log's lines,
// in upper case and with a prefix. Its message also has them, for readers.
type journalCore struct {
	journal *os.File
	fields  []zapcore.Field
}

var _ zapcore.Core = (*journalCore)(nil)

// newJournalLogger returns the log of one device in the journal.
func newJournalLogger(journal *os.File, id uint32) *logger {
	return (&logger{&journalCore{journal: journal}}).of(id)
}

// Enabled implements zapcore.Core.
func (c *journalCore) Enabled(level zapcore.Level) bool { return level >= zapcore.InfoLevel }

// With implements zapcore.Core.
func (c *journalCore) With(fields []zapcore.Field) zapcore.Core {
	return &journalCore{c.journal, slices.Concat(c.fields, fields)}
}

// Check implements zapcore.Core.
func (c *journalCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	return ce.AddCore(e, c)
}

// Sync implements zapcore.Core.
func (c *journalCore) Sync() error { return nil }

// Write implements zapcore.Core.
func (c *journalCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	entry := []systemd.Field{
		{Name: "SYSLOG_IDENTIFIER", Value: "ublk-loop"},
		{Name: "PRIORITY", Value: strconv.Itoa(priority(e.Level))},
	}
	words := []string{e.Message}
	for _, f := range slices.Concat(c.fields, fields) {
		values := zapcore.NewMapObjectEncoder()
		f.AddTo(values)
		value := fmt.Sprint(values.Fields[f.Key])
		words = append(words, f.Key+"="+report.OneLine(value))
		entry = append(entry, systemd.Field{Name: "UBLK_LOOP_" + strings.ToUpper(f.Key), Value: value})
	}
	return systemd.Log(c.journal, append(entry, systemd.Field{Name: "MESSAGE", Value: strings.Join(words, " ")}))
}

// priority returns the level of syslog(3) for a level.
func priority(level zapcore.Level) int {
	switch {
	case level >= zapcore.ErrorLevel:
		return 3
	case level >= zapcore.WarnLevel:
		return 4
	}
	return 6
}
