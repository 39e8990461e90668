// A plugin for qemu-aarch64 that counts instructions: prints, one a line, how many were executed between
// each two calls of count_marker. Declares what it needs of qemu-plugin.h, which Debian does not package.
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
extern void qemu_plugin_register_vcpu_tb_trans_cb(
    qemu_plugin_id_t id, void (*callback)(qemu_plugin_id_t, struct qemu_plugin_tb *));
extern void qemu_plugin_register_vcpu_tb_exec_cb(
    struct qemu_plugin_tb *tb, void (*callback)(unsigned, void *), int flags, void *user);
extern void qemu_plugin_register_vcpu_tb_exec_inline(
    struct qemu_plugin_tb *tb, int operation, void *counter, uint64_t add);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t i);
extern const char *qemu_plugin_insn_symbol(const struct qemu_plugin_insn *insn);

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

static uint64_t executed, begun;
static int is_counting;

static void at_marker(unsigned cpu, void *user) {
  (void)cpu, (void)user;
  if (is_counting) fprintf(stderr, "%" PRIu64 "\n", executed - begun);
  begun = executed;
  is_counting = !is_counting;
}

static void at_block(qemu_plugin_id_t id, struct qemu_plugin_tb *tb) {
  (void)id;
  const char *symbol = qemu_plugin_insn_symbol(qemu_plugin_tb_get_insn(tb, 0));
  if (symbol && strcmp(symbol, "count_marker") == 0)
    qemu_plugin_register_vcpu_tb_exec_cb(tb, at_marker, 0, 0);
  qemu_plugin_register_vcpu_tb_exec_inline(tb, 0, &executed, qemu_plugin_tb_n_insns(tb));
}

__attribute__((visibility("default"))) int qemu_plugin_install(
    qemu_plugin_id_t id, const void *info, int count, char **arguments) {
  (void)info, (void)count, (void)arguments;
  qemu_plugin_register_vcpu_tb_trans_cb(id, at_block);
  return 0;
}
