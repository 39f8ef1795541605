/* Reads the parts of a rule from YAML; what scenario.c needs of it. */
#ifndef SIMULATOR_SCENARIO_READ_H
#define SIMULATOR_SCENARIO_READ_H

#include "common/yaml.h"
#include "simulator/scenario.h"

void sim_fault_init(struct sim_fault *fault);
/* All: 0, or -EINVAL with "name:line:column: ...". Strings are borrowed from the document. A NULL
 * node leaves *ret as it is. */
int sim_fault_read(struct sim_fault *ret, const struct yaml *yaml, const struct yaml_node *node,
                   struct err *err);
int sim_limit_read(struct sim_limit *ret, const struct yaml *yaml, const struct yaml_node *node,
                   struct err *err);
int sim_timing_read(struct sim_timing *ret, const struct yaml *yaml, const struct yaml_node *node,
                    struct err *err);
/* timing: what the rule's own timing starts from. */
int sim_rule_read(struct sim_rule *ret, const struct sim_timing *timing, const struct yaml *yaml,
                  const struct yaml_node *node, struct err *err);

#endif
