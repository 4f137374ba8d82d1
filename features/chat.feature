Feature: Talking with a model
  People talk with a model on a terminal, by its reference or by a name of their own.

  Scenario: A conversation, without any daemon
    When the user talks on a terminal
    And asks "Hello, who are you?"
    And asks "What do bees eat?"
    And types "/regenerate"
    And types "/save bees.md"
    And leaves
    Then it exits with 0
    And each answer was drawn with a line about model, node and speeds
    And bees.md holds both questions with their last answers
    And what was typed is kept where the user alone can read it
    And no process of rbee is left

  Scenario: A name of the user's own for a model
    Given a queen runs
    When the user calls the bundled model "storyteller"
    And runs storyteller with the prompt "Once upon a time"
    Then it exits with 0
    And stdout holds the text and one newline
    And models show and models list know storyteller
    And a client of OpenAI's API finds storyteller, and gets an answer of it
    When the user has storyteller stand for itself
    Then it exits with 1
    And stderr says that it leads back to itself
