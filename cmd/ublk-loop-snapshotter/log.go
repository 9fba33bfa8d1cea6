package main

import (
	"context"
	"os"
	"path"
	"time"

	"go.uber.org/zap/zapcore"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// logger writes JSON lines, like ublk-loop serve.
type logger struct{ core zapcore.Core }

func newLogger(file *os.File) *logger {
	return &logger{zapcore.NewCore(zapcore.NewJSONEncoder(zapcore.EncoderConfig{
		TimeKey: "ts", LevelKey: "level", MessageKey: "msg", LineEnding: zapcore.DefaultLineEnding,
		EncodeTime: zapcore.RFC3339NanoTimeEncoder, EncodeLevel: zapcore.LowercaseLevelEncoder,
	}), zapcore.Lock(file), zapcore.InfoLevel)}
}

func (l *logger) info(message string) { l.write(zapcore.InfoLevel, message, nil) }

func (l *logger) failed(err error) { l.write(zapcore.ErrorLevel, err.Error(), nil) }

// write drops its own error, because there is no other place to report it.
func (l *logger) write(level zapcore.Level, message string, fields []zapcore.Field) {
	_ = l.core.Write(zapcore.Entry{Level: level, Time: time.Now(), Message: message}, fields)
}

// failures answers a request, and logs its error. It does not log the errors that
// containerd expects: a missing or existing snapshot, and a request that containerd
// repeats.
func (l *logger) failures(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	reply, err := handler(ctx, req)
	switch status.Code(err) {
	case codes.OK, codes.NotFound, codes.AlreadyExists, codes.FailedPrecondition, codes.Canceled:
	default:
		l.write(zapcore.ErrorLevel, path.Base(info.FullMethod), []zapcore.Field{
			{Key: "error", Type: zapcore.StringType, String: err.Error()},
		})
	}
	return reply, err
}
