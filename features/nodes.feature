Feature: Other machines of the user
  A machine with nothing but sshd and a Python becomes a node by two commands, and serves models from then on.

  @s01
  Scenario: Register a node
    Given a machine called workstation
    When the user registers it with a repository, a branch and an install path in the home folder
    Then it exits with 0
    And stderr says that the connection to its host is tested, and works
    And stderr says "Node workstation was saved"
    And sshd there let that user in with that key, and ran a command
    And the registry holds every field as it was given, with paths that are absolute and what the machine has

  @s01
  Scenario: What the keeper asks of the queen
    Given a machine called workstation
    And a queen runs, and what is sent to it is watched
    When the user registers it with a repository, a branch and an install path in the home folder
    Then it exits with 0
    And /v2/registry/beehives/add was asked for exactly what the user gave

  @s01
  Scenario: A machine whose port is not named
    Given a machine whose sshd listens at port 22
    When the user registers it without a port
    Then it exits with 0
    And sshd there let that user in with that key, and ran a command
    And the registry holds port 22

  @s01
  Scenario: A host key that nobody knows
    Given a machine called workstation
    When the user registers it without a word about its host key
    Then it exits with 1
    And stderr shows the fingerprint of its host key, and the option that accepts it
    And no node is registered
    When the user registers it on a terminal, and says no when asked about the fingerprint
    Then it exits with 1
    And no node is registered
    When the user registers it on a terminal, and says yes when asked about the fingerprint
    Then it exits with 0
    And the registry holds its host key

  @s01
  Scenario: A name that is taken
    Given the registered node workstation
    When the user registers it with a repository, a branch and an install path in the home folder
    Then it exits with 1
    And stderr says "node workstation is registered already"
    And stderr says "rbee setup update-node --name workstation"

  @s02
  Scenario: A machine that does not answer
    Given a machine called workstation
    And what is sent there gets lost on the way
    When the user registers it
    Then it exits with 1
    And stderr says "Testing SSH connection to"
    And stderr says "failed: timeout, no answer within 1 s"
    And no node is registered

  @s02
  Scenario Outline: A machine that lets nobody in
    Given a machine called workstation
    And <trouble>
    When the user registers it
    Then it exits with 1
    And stderr says "Testing SSH connection to"
    And stderr says "<reason>"
    And no node is registered

    Examples:
      | trouble                           | reason                                    |
      | sshd does not run there           | failed: connection refused at port        |
      | the user's key is not known there | was not let in with the key               |
      | its login shell ends at once      | the other side runs no commands           |

  @s03
  Scenario: Bring rbee to a node
    Given the registered node workstation
    When the user installs rbee there
    Then it exits with 0
    And stderr says "Copying rbee"
    And stderr says "Checking the program on workstation"
    And stderr says "Writing the swarm's token and settings on workstation"
    And stderr says "on workstation."
    And the node holds the very file, its links, the token for nobody else, and settings
    And rbee, run there with these settings, uses that folder alone

  @s03
  Scenario: Nothing is sent twice, and the settings there are the user's
    Given the registered node workstation
    When the user installs rbee there
    Then it exits with 0
    Given the user has changed the settings there
    When the user installs rbee there
    Then it exits with 0
    And stderr says "already; nothing is sent"
    And the settings there are as the user left them

  @s03
  Scenario: A bar shows how far the copy is
    Given the registered node workstation
    And the way there is slow
    When the user installs rbee there from a terminal
    Then it exits with 0
    And a bar showed percent, megabytes and speed

  @s03
  Scenario: Back to the version before
    Given the registered node workstation
    And an earlier version is installed there
    When the user installs rbee there
    And the user takes the version before back
    Then it exits with 0
    And stderr says "rbee 0.0.1"
    And the earlier version is there again
    When the user takes the version before back
    Then it exits with 0
    And the node holds the very file, its links, the token for nobody else, and settings

  @s03
  Scenario: Build it there
    Given a machine called workstation, whose caches hold the engine
    And the node is registered with a repository of this checkout
    When the user installs rbee there from source
    Then it exits with 0
    And stderr says "Building branch as-it-is on workstation"
    And stderr shows what the build printed
    And stderr says "on workstation."
    And rbee, run there with these settings, uses that folder alone

  @s04
  Scenario: List nodes
    When the user lists the nodes
    Then it exits with 0
    And stderr says "No nodes are registered"
    Given the registered node workstation
    And the registered node attic
    When the user lists the nodes
    Then it exits with 0
    And stdout shows a heading, and of each node its name, host, status, last connection and install path

  @s05
  Scenario: Remove a node
    Given the registered node workstation
    When the user removes it
    Then it exits with 0
    And stderr says "Node workstation was removed"
    And no node is registered
    When the user removes it
    Then it exits with 1
    And stderr says "node workstation is not in the registry"

  @s05
  Scenario: Remove a node whose hive runs
    Given a queen runs
    And the registered node workstation
    And rbee is installed there
    When the user runs infer there
    Then it exits with 0
    When the user removes it
    Then it exits with 0
    And stderr says "Ending the hive on workstation"
    And nothing runs on workstation

  @s06
  Scenario: Inference on an unknown node
    Given the registered node workstation
    When the user runs infer on the node nowhere
    Then it exits with 1
    And stderr says "node nowhere is not in the registry"
    And stderr says "rbee setup add-node --name nowhere --ssh-host HOST --ssh-user USER"
    And nothing was connected to, and no hive was started
    And no process of rbee is left

  @s57
  Scenario: The program on the node is another one
    Given the registered node workstation
    And rbee is installed there
    And [remote] binary_path names a copy of it elsewhere on the node
    And a queen runs
    When the user runs infer there
    Then it exits with 0
    And the hive there was started from that copy

  @s57
  Scenario: The sources on the node are in another folder
    Given a machine called workstation
    And the node is registered with a repository that builds at once
    And [remote] git_repo_dir names another folder on the node
    When the user installs rbee there from source
    Then it exits with 0
    And the sources are in that folder
    When the user installs rbee there from source
    Then it exits with 0

  @h2
  Scenario Outline: A node that cannot be reached
    Given the registered node workstation
    And <trouble>
    When the user runs infer there
    Then it exits with 1
    And stderr says "<reason>"
    And no process of rbee is left
    When the user lists the nodes
    Then stdout says "unreachable"

    Examples:
      | trouble                 | reason                             |
      | sshd does not run there | failed: connection refused at port |
      | its host key is another | has changed                        |
