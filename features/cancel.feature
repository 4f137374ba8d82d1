Feature: Ctrl+C
  The user may change their mind at any moment; nothing stays behind.

  Scenario Outline: Ctrl+C without a daemon, while <moment>
    Given a model that takes a while to load
    And infer runs with it and is <moment>
    When the user presses Ctrl+C
    Then infer ends with 130 and says "Cancelled." on a line of its own
    And no process of rbee is left

    Examples:
      | moment              |
      | starting            |
      | loading             |
      | reading the prompt  |
      | writing             |

  @s40
  Scenario: Ctrl+C with a queen that stays
    Given a model that writes without end
    And a queen runs
    And infer runs with it and has written 20 tokens
    When the user presses Ctrl+C
    Then infer ends with 130 and says "Cancelled." on a line of its own
    And it took at most 5 seconds
    And the worker has stopped generating, is idle and stays

  @s40
  Scenario: Ctrl+C stops this request and no other
    Given a worker that takes prompts and never writes
    And a queen runs
    And infer waits for its first token
    And another infer waits for its first token
    When the user presses Ctrl+C
    Then infer ends with 130 and says "Cancelled." on a line of its own
    And the worker was told to stop that request and no other
    And the other infer still waits

  @s40
  Scenario: Ctrl+C does not wait for a worker that never answers
    Given a worker that takes prompts and answers nobody who cancels
    And an acknowledgement may take 1 second
    And a queen runs
    And infer waits for its first token
    When the user presses Ctrl+C
    Then infer ends with 130 and says "Cancelled." on a line of its own
    And it took at least 1 second and at most 4
    And the worker was told to stop that request and no other
