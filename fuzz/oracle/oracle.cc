// What libprotobuf reads in a message: the judge's own reading, one process for many messages.
//
// In: batches, each a length and that many bytes of records; a record is the layout (one byte), a length and
// the message. Out: for each batch its length and the answers in the same order; an answer is one of the
// verdicts below and, for what was accepted, the name, the kind of version with its value, and the signature.
// Numbers are little-endian, lengths have 32 bits, texts follow their length.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/stubs/logging.h>

#include "identity.pb.h"

namespace {

enum Verdict : char { kRejected = 0, kAccepted = 1, kDependsOnPieces = 2 };
enum VersionKind : char { kNone = 0, kNumber = 1, kLabel = 2, kText = 3 };

[[noreturn]] void Fail(const char* problem) {
  std::fprintf(stderr, "oracle: %s\n", problem);
  std::exit(1);
}

// False at the end of the input, which may come before a batch but not within one.
bool Read(void* into, size_t size, bool may_end) {
  const size_t read = std::fread(into, 1, size, stdin);
  if (read == size) return true;
  if (read == 0 && may_end) return false;
  Fail("the input ends within a batch");
}

template <typename Number>
void Put(std::string* out, Number number) {
  for (size_t at = 0; at < sizeof(Number); ++at) {
    out->push_back(static_cast<char>(static_cast<uint64_t>(number) >> (8 * at)));
  }
}

void PutText(std::string* out, const std::string& text) {
  Put(out, static_cast<uint32_t>(text.size()));
  out->append(text);
}

void PutModelSpec(std::string* out, const ModelSpec& spec) {
  PutText(out, spec.name());
  switch (spec.version_choice_case()) {
    case ModelSpec::kVersion:
      out->push_back(kNumber);
      Put(out, spec.version().value());
      break;
    case ModelSpec::kVersionLabel:
      out->push_back(kLabel);
      PutText(out, spec.version_label());
      break;
    case ModelSpec::VERSION_CHOICE_NOT_SET:
      out->push_back(kNone);
      break;
  }
  PutText(out, spec.signature_name());
}

void PutIdentity(std::string* out, const WithModelSpec& message) { PutModelSpec(out, message.model_spec()); }

void PutIdentity(std::string* out, const WithTasks& message) {
  PutModelSpec(out, message.tasks_size() == 0 ? ModelSpec::default_instance() : message.tasks(0).model_spec());
}

void PutIdentity(std::string* out, const WithNameAndVersion& message) {
  PutText(out, message.model_name());
  out->push_back(kText);
  PutText(out, message.model_version());
  PutText(out, std::string());
}

// Parses as a gRPC server does, from a stream of pieces, and once more from one array.
template <typename Message>
void Answer(std::string* out, const char* data, int size) {
  static Message* const streamed = new Message;
  static Message* const whole = new Message;
  const int piece = 1 + size % 37;
  google::protobuf::io::ArrayInputStream stream(data, size, piece);
  const bool streamed_ok = streamed->ParseFromZeroCopyStream(&stream);
  const bool whole_ok = whole->ParseFromArray(data, size);
  if (streamed_ok != whole_ok) {
    out->push_back(kDependsOnPieces);
    return;
  }
  if (!whole_ok) {
    out->push_back(kRejected);
    return;
  }
  std::string identity, other;
  PutIdentity(&identity, *streamed);
  PutIdentity(&other, *whole);
  if (identity != other) {
    out->push_back(kDependsOnPieces);
    return;
  }
  out->push_back(kAccepted);
  out->append(identity);
}

void AnswerBatch(const std::string& batch, std::string* out) {
  size_t at = 0;
  while (at < batch.size()) {
    uint32_t size;
    if (batch.size() - at < 1 + sizeof size) Fail("a record is cut short");
    const char layout = batch[at];
    std::memcpy(&size, batch.data() + at + 1, sizeof size);
    at += 1 + sizeof size;
    if (batch.size() - at < size) Fail("a record is cut short");
    const char* data = batch.data() + at;
    at += size;
    switch (layout) {
      case 0: Answer<WithModelSpec>(out, data, static_cast<int>(size)); break;
      case 1: Answer<WithTasks>(out, data, static_cast<int>(size)); break;
      case 2: Answer<WithNameAndVersion>(out, data, static_cast<int>(size)); break;
      default: Fail("a record has an unknown layout");
    }
  }
}

}  // namespace

int main() {
  GOOGLE_PROTOBUF_VERIFY_VERSION;
  // Every message that is not UTF-8 would be logged.
  google::protobuf::SetLogHandler(nullptr);
  std::string batch, answers;
  uint32_t size;
  while (Read(&size, sizeof size, true)) {
    batch.resize(size);
    Read(&batch[0], size, false);
    answers.assign(sizeof size, '\0');
    AnswerBatch(batch, &answers);
    const uint32_t length = static_cast<uint32_t>(answers.size() - sizeof length);
    std::memcpy(&answers[0], &length, sizeof length);
    if (std::fwrite(answers.data(), 1, answers.size(), stdout) != answers.size() || std::fflush(stdout) != 0) {
      Fail("the judge does not read");
    }
  }
  return 0;
}
